//! Names: which of them a certificate is for (RFC 6125, as `X509_check_host()` reads it), and which its CAs allow it
//! (RFC 5280 section 4.2.1.10).

use super::dn;
use super::verdict::VerifyError;
use x509_parser::prelude::{GeneralName, NameConstraints, ParsedExtension, X509Certificate};

/// Whether a certificate is for the host: by its DNS names or, when it has none, by the common names of its subject.
pub fn matches_host(cert: &X509Certificate<'_>, host: &str) -> bool {
    if host.is_empty() {
        return false;
    }
    let mut has_dns = false;
    for name in alternative_names(cert) {
        if let GeneralName::DNSName(pattern) = name {
            has_dns = true;
            if host_matches(pattern, host) {
                return true;
            }
        }
    }
    !has_dns && cert.subject().iter_common_name().any(|cn| cn.as_str().is_ok_and(|cn| host_matches(cn, host)))
}

fn alternative_names<'a>(cert: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    cert.extensions().iter().flat_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(san) => san.general_names.as_slice(),
        _ => &[],
    })
}

fn host_matches(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    // One star, in the first of at least three labels, stands for a part of one label.
    let Some((label, rest)) = pattern.split_once('.') else { return false };
    let Some((before, after)) = label.split_once('*') else { return false };
    let (Some((host_label, host_rest)), false) = (host.split_once('.'), rest.contains('*')) else {
        return false;
    };
    let idna = |l: &str| l.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("xn--"));
    let bare = before.is_empty() && after.is_empty();
    !after.contains('*')
        && rest.contains('.')
        && rest.eq_ignore_ascii_case(host_rest)
        && !host_label.is_empty()
        && (bare || (!idna(label) && !idna(host_label)))
        && host_label.len() >= before.len() + after.len()
        && host_label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && host_label.get(..before.len()).is_some_and(|p| p.eq_ignore_ascii_case(before))
        && host_label.get(host_label.len() - after.len()..).is_some_and(|p| p.eq_ignore_ascii_case(after))
}

/// Reports every name of a path, the leaf first, that a certificate above it does not allow.
pub(super) fn check<'a, 'b: 'a>(
    path: impl Iterator<Item = &'a X509Certificate<'b>>,
    bad: &mut impl FnMut(VerifyError),
) {
    let path: Vec<_> = path.collect();
    let constraints: Vec<Vec<Constraints<'_>>> = path.iter().map(|ca| Constraints::of(ca)).collect();
    for (i, cert) in path.iter().enumerate().rev() {
        let self_issued = dn::canonical(cert.subject()) == dn::canonical(cert.issuer());
        if i != 0 && self_issued {
            continue;
        }
        let above = constraints.iter().enumerate().skip(i + 1).rev().flat_map(|(_, list)| list);
        let mut names = None;
        for constraints in above {
            let names = names.get_or_insert_with(|| names_of(cert, i == 0));
            one(names, constraints, bad);
        }
    }
}

/// A name, or what names are held against; directory names in the form to compare by.
#[derive(Debug)]
enum Name<'a> {
    Directory(Vec<u8>),
    Other(&'a GeneralName<'a>),
    Dns(&'a str),
    Email(&'a str),
}

struct Constraints<'a> {
    permitted: Vec<Name<'a>>,
    excluded: Vec<Name<'a>>,
}

/// Most comparisons of names with constraints, as OpenSSL has it: certificates are small, but their product is not.
const MOST_COMPARISONS: usize = 1 << 20;

// === impl Constraints ===

impl<'a> Constraints<'a> {
    fn of(ca: &'a X509Certificate<'_>) -> Vec<Self> {
        let each = ca.extensions().iter().filter_map(|e| match e.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) => Some(constraints),
            _ => None,
        });
        each.map(|c: &'a NameConstraints<'_>| Constraints {
            permitted: c.permitted_subtrees.iter().flatten().map(|s| Name::of(&s.base)).collect(),
            excluded: c.excluded_subtrees.iter().flatten().map(|s| Name::of(&s.base)).collect(),
        })
        .collect()
    }
}

// === impl Name ===

impl<'a> Name<'a> {
    fn of(name: &'a GeneralName<'a>) -> Self {
        match name {
            GeneralName::DirectoryName(name) => Name::Directory(dn::canonical(name)),
            GeneralName::DNSName(name) => Name::Dns(name),
            GeneralName::RFC822Name(name) => Name::Email(name),
            other => Name::Other(other),
        }
    }
}

/// The names of a certificate; of a leaf without DNS names also common names that look like some.
fn names_of<'a>(cert: &'a X509Certificate<'_>, leaf: bool) -> Vec<Name<'a>> {
    let mut names = Vec::new();
    if cert.subject().iter().next().is_some() {
        names.push(Name::Directory(dn::canonical(cert.subject())));
    }
    names.extend(cert.subject().iter_email().filter_map(|email| email.as_str().ok()).map(Name::Email));
    names.extend(alternative_names(cert).map(Name::of));
    if leaf && !names.iter().any(|name| matches!(name, Name::Dns(_))) {
        let looks_like = |cn: &&str| {
            cn.contains('.')
                && cn.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'*'))
        };
        let common = cert.subject().iter_common_name().filter_map(|cn| cn.as_str().ok());
        names.extend(common.filter(looks_like).map(Name::Dns));
    }
    names
}

fn one(names: &[Name<'_>], constraints: &Constraints<'_>, bad: &mut impl FnMut(VerifyError)) {
    let count = constraints.permitted.len() + constraints.excluded.len();
    if names.len().saturating_mul(count) > MOST_COMPARISONS {
        return bad(VerifyError::UNSPECIFIED);
    }
    for name in names {
        judge(name, constraints, bad);
    }
}

fn judge(name: &Name<'_>, constraints: &Constraints<'_>, bad: &mut impl FnMut(VerifyError)) {
    let mut permitted = None;
    for base in &constraints.permitted {
        match within(name, base) {
            Relation::OtherKind => {}
            Relation::Unknown => return bad(VerifyError::UNSUPPORTED_CONSTRAINT_TYPE),
            Relation::Malformed => return bad(VerifyError::UNSUPPORTED_NAME_SYNTAX),
            Relation::Inside => permitted = Some(true),
            Relation::Outside => permitted = permitted.or(Some(false)),
        }
    }
    if permitted == Some(false) {
        return bad(VerifyError::PERMITTED_VIOLATION);
    }
    for base in &constraints.excluded {
        match within(name, base) {
            Relation::Inside => return bad(VerifyError::EXCLUDED_VIOLATION),
            Relation::Unknown => return bad(VerifyError::UNSUPPORTED_CONSTRAINT_TYPE),
            Relation::Malformed => return bad(VerifyError::UNSUPPORTED_NAME_SYNTAX),
            Relation::Outside | Relation::OtherKind => {}
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Relation {
    Inside,
    Outside,
    OtherKind,
    /// A constraint of this kind is not understood.
    Unknown,
    /// The name is none of its kind.
    Malformed,
}

fn within(name: &Name<'_>, base: &Name<'_>) -> Relation {
    use GeneralName::*;
    let inside = match (name, base) {
        (Name::Dns(name), Name::Dns(base)) => Some(dns_within(name, base)),
        (Name::Email(name), Name::Email(base)) => email_within(name, base),
        (Name::Directory(name), Name::Directory(base)) => Some(name.starts_with(base)),
        (Name::Other(name), Name::Other(base)) => match (name, base) {
            (URI(name), URI(base)) => uri_within(name, base),
            (IPAddress(_), IPAddress(base)) if !matches!(base.len(), 8 | 32) => return Relation::Unknown,
            (IPAddress(name), IPAddress(base)) => ip_within(name, base),
            (OtherName(..), OtherName(..))
            | (X400Address(_), X400Address(_))
            | (EDIPartyName(_), EDIPartyName(_))
            | (RegisteredID(_), RegisteredID(_))
            | (Invalid(..), _)
            | (_, Invalid(..)) => return Relation::Unknown,
            _ => return Relation::OtherKind,
        },
        (Name::Other(Invalid(..)), _) | (_, Name::Other(Invalid(..))) => return Relation::Unknown,
        _ => return Relation::OtherKind,
    };
    match inside {
        Some(true) => Relation::Inside,
        Some(false) => Relation::Outside,
        None => Relation::Malformed,
    }
}

fn dns_within(name: &str, base: &str) -> bool {
    if base.is_empty() {
        return true;
    }
    let Some(start) = name.len().checked_sub(base.len()) else { return false };
    let Some((before, end)) = name.split_at_checked(start) else { return false };
    end.eq_ignore_ascii_case(base) && (before.is_empty() || base.starts_with('.') || before.ends_with('.'))
}

/// None where the name is no address.
fn email_within(name: &str, base: &str) -> Option<bool> {
    let (local, host) = name.rsplit_once('@')?;
    Some(match base.rsplit_once('@') {
        Some((base_local, base_host)) => {
            (base_local.is_empty() || base_local == local) && host.eq_ignore_ascii_case(base_host)
        }
        None if base.starts_with('.') => host.len() >= base.len() && dns_within(host, base),
        None => host.eq_ignore_ascii_case(base),
    })
}

/// None where the name is no URI with a host.
fn uri_within(name: &str, base: &str) -> Option<bool> {
    let (_, rest) = name.split_once(':')?;
    let rest = rest.strip_prefix("//")?;
    let host = rest.split_once(':').or_else(|| rest.split_once('/')).map_or(rest, |(host, _)| host);
    if host.is_empty() {
        return None;
    }
    Some(match base.starts_with('.') {
        true => host.len() > base.len() && dns_within(host, base),
        false => host.eq_ignore_ascii_case(base),
    })
}

/// None where the name is no address.
fn ip_within(name: &[u8], base: &[u8]) -> Option<bool> {
    let (net, mask) = base.split_at(base.len() / 2);
    matches!(name.len(), 4 | 16)
        .then(|| net.len() == name.len() && name.iter().zip(net).zip(mask).all(|((a, n), m)| a & m == n & m))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{der, keys};
    use x509_parser::prelude::FromDer;
    use x509_parser::x509::X509Name;

    #[test]
    fn stars_stand_for_a_part_of_one_label() {
        assert!(host_matches("*.example.com", "WWW.example.COM"));
        assert!(host_matches("w*w.example.com", "www.example.com"));
        assert!(!host_matches("*.example.com", "example.com"));
        assert!(!host_matches("*.example.com", "a.b.example.com"));
        assert!(!host_matches("*.com", "example.com"));
        assert!(!host_matches("www.*.com", "www.example.com"));
        assert!(!host_matches("*.*.com", "www.example.com"));
        assert!(!host_matches("x*.example.com", "xn--a.example.com"));
        assert!(!host_matches("*.example.com", ".example.com"));
    }

    #[test]
    fn common_names_count_only_without_dns_names() {
        let load = |name: &str| {
            keys::certificates(&format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
        };
        let matches = |name: &str, host: &str| {
            let chain = load(name);
            matches_host(&X509Certificate::from_der(&chain[0]).unwrap().1, host)
        };
        assert!(matches("rsa.crt", "a.example.com"));
        assert!(!matches("rsa.crt", "127.0.0.1"));
        assert!(matches("cn.crt", "cn.example.com"));
        assert!(!matches("cn.crt", "other.example.com"));
        assert!(!matches("cn.crt", ""));
    }

    #[test]
    fn subtrees() {
        use GeneralName::*;
        let within =
            |name: &GeneralName<'_>, base: &GeneralName<'_>| within(&Name::of(name), &Name::of(base));
        assert_eq!(within(&DNSName("a.b.c"), &DNSName("b.c")), Relation::Inside);
        assert_eq!(within(&DNSName("ab.c"), &DNSName("b.c")), Relation::Outside);
        assert_eq!(within(&DNSName("b.c"), &DNSName(".b.c")), Relation::Outside);
        assert_eq!(within(&RFC822Name("u@b.c"), &RFC822Name("b.c")), Relation::Inside);
        assert_eq!(within(&RFC822Name("u@a.b.c"), &RFC822Name("b.c")), Relation::Outside);
        assert_eq!(within(&RFC822Name("u@a.b.c"), &RFC822Name(".b.c")), Relation::Inside);
        assert_eq!(within(&RFC822Name("v@b.c"), &RFC822Name("u@b.c")), Relation::Outside);
        assert_eq!(within(&RFC822Name("v@b.c"), &RFC822Name("@b.c")), Relation::Inside);
        assert_eq!(within(&RFC822Name("b.c"), &RFC822Name("b.c")), Relation::Malformed);
        let net = [10, 0, 0, 0, 255, 0, 0, 0];
        assert_eq!(within(&IPAddress(&[10, 9, 8, 7]), &IPAddress(&net)), Relation::Inside);
        assert_eq!(within(&IPAddress(&[11, 9, 8, 7]), &IPAddress(&net)), Relation::Outside);
        assert_eq!(within(&IPAddress(&[0; 16]), &IPAddress(&net)), Relation::Outside);
        assert_eq!(within(&IPAddress(&[0; 4]), &IPAddress(&net[..6])), Relation::Unknown);
        assert_eq!(within(&IPAddress(&[0; 5]), &IPAddress(&net)), Relation::Malformed);
        assert_eq!(within(&URI("spiffe://b.c/x"), &URI("b.c")), Relation::Inside);
        assert_eq!(within(&URI("https://u.b.c:8/x"), &URI(".b.c")), Relation::Inside);
        assert_eq!(within(&URI("https://a.b.c/b.c"), &URI("b.c")), Relation::Outside);
        assert_eq!(within(&URI("https://b.c"), &URI(".b.c")), Relation::Outside);
        assert_eq!(within(&URI("urn:b.c"), &URI("b.c")), Relation::Malformed);
        assert_eq!(within(&URI("a"), &DNSName("a")), Relation::OtherKind);
    }

    #[test]
    fn directory_names_are_within_by_whole_parts() {
        let rdn = |cns: &[&str]| {
            let cn =
                |cn: &&str| der::encode(0x30, &[&[6, 3, 0x55, 4, 3], &der::encode(0x0c, &[cn.as_bytes()])]);
            der::encode(
                0x31,
                &cns.iter().map(cn).collect::<Vec<_>>().iter().map(Vec::as_slice).collect::<Vec<_>>(),
            )
        };
        let name = |rdns: &[Vec<u8>]| {
            let der = der::encode(0x30, &rdns.iter().map(Vec::as_slice).collect::<Vec<_>>());
            Name::Directory(dn::canonical(&X509Name::from_der(&der).unwrap().1))
        };
        let base = name(&[rdn(&["a"])]);
        assert_eq!(within(&name(&[rdn(&["a"]), rdn(&["b"])]), &base), Relation::Inside);
        assert_eq!(within(&name(&[rdn(&["a", "b"])]), &base), Relation::Outside);
        assert_eq!(within(&name(&[rdn(&["ab"])]), &base), Relation::Outside);
    }

    #[test]
    fn names_times_constraints_are_limited() {
        let names: Vec<_> = (0..1100).map(|_| Name::Dns("a.b")).collect();
        let bases = |n| (0..n).map(|_| Name::Dns("b")).collect();
        let mut said = Vec::new();
        one(&names, &Constraints { permitted: bases(900), excluded: Vec::new() }, &mut |e| said.push(e));
        assert_eq!(said, []);
        one(&names, &Constraints { permitted: Vec::new(), excluded: bases(1000) }, &mut |e| said.push(e));
        assert_eq!(said, [VerifyError::UNSPECIFIED]);
    }
}
