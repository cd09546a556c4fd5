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
    for (i, ca) in path.iter().enumerate().skip(1) {
        for extension in ca.extensions() {
            if let ParsedExtension::NameConstraints(constraints) = extension.parsed_extension() {
                for (j, cert) in path.iter().enumerate().take(i) {
                    let self_issued = dn::canonical(cert.subject()) == dn::canonical(cert.issuer());
                    if j == 0 || !self_issued {
                        one(cert, constraints, bad);
                    }
                }
            }
        }
    }
}

fn one(cert: &X509Certificate<'_>, constraints: &NameConstraints<'_>, bad: &mut impl FnMut(VerifyError)) {
    let mut has_dns = false;
    for name in alternative_names(cert) {
        has_dns |= matches!(name, GeneralName::DNSName(_));
        judge(name, constraints, bad);
    }
    if cert.subject().iter().next().is_some() {
        judge(&GeneralName::DirectoryName(cert.subject().clone()), constraints, bad);
    }
    for email in cert.subject().iter_email() {
        if let Ok(email) = email.as_str() {
            judge(&GeneralName::RFC822Name(email), constraints, bad);
        }
    }
    if !has_dns {
        for cn in cert.subject().iter_common_name() {
            if let Ok(cn) = cn.as_str()
                && cn.contains('.')
                && cn.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'*'))
            {
                judge(&GeneralName::DNSName(cn), constraints, bad);
            }
        }
    }
}

fn judge(name: &GeneralName<'_>, constraints: &NameConstraints<'_>, bad: &mut impl FnMut(VerifyError)) {
    let mut permitted = None;
    for subtree in constraints.permitted_subtrees.iter().flatten() {
        match within(name, &subtree.base) {
            Relation::OtherKind => {}
            Relation::Unknown => return bad(VerifyError::UNSUPPORTED_CONSTRAINT_TYPE),
            Relation::Inside => permitted = Some(true),
            Relation::Outside => permitted = permitted.or(Some(false)),
        }
    }
    if permitted == Some(false) {
        bad(VerifyError::PERMITTED_VIOLATION);
    }
    for subtree in constraints.excluded_subtrees.iter().flatten() {
        match within(name, &subtree.base) {
            Relation::Inside => bad(VerifyError::EXCLUDED_VIOLATION),
            Relation::Unknown => bad(VerifyError::UNSUPPORTED_CONSTRAINT_TYPE),
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
}

fn within(name: &GeneralName<'_>, base: &GeneralName<'_>) -> Relation {
    use GeneralName::*;
    let inside = match (name, base) {
        (DNSName(name), DNSName(base)) => dns_within(name, base),
        (RFC822Name(name), RFC822Name(base)) => email_within(name, base),
        (IPAddress(name), IPAddress(base)) => ip_within(name, base),
        (DirectoryName(name), DirectoryName(base)) => dn::canonical(name).starts_with(&dn::canonical(base)),
        (URI(_), URI(_))
        | (OtherName(..), OtherName(..))
        | (X400Address(_), X400Address(_))
        | (EDIPartyName(_), EDIPartyName(_))
        | (RegisteredID(_), RegisteredID(_))
        | (Invalid(..), _)
        | (_, Invalid(..)) => return Relation::Unknown,
        _ => return Relation::OtherKind,
    };
    if inside { Relation::Inside } else { Relation::Outside }
}

fn dns_within(name: &str, base: &str) -> bool {
    if base.is_empty() {
        return true;
    }
    let Some(start) = name.len().checked_sub(base.len()) else { return false };
    let Some((before, end)) = name.split_at_checked(start) else { return false };
    end.eq_ignore_ascii_case(base) && (before.is_empty() || base.starts_with('.') || before.ends_with('.'))
}

fn email_within(name: &str, base: &str) -> bool {
    let Some((_, host)) = name.rsplit_once('@') else { return false };
    match base.split_once('@') {
        Some((local, base_host)) if !local.is_empty() => {
            name.rsplit_once('@').is_some_and(|(l, _)| l == local) && host.eq_ignore_ascii_case(base_host)
        }
        _ if base.starts_with('.') => dns_within(host, base),
        _ => base.is_empty() || host.eq_ignore_ascii_case(base.trim_start_matches('@')),
    }
}

fn ip_within(name: &[u8], base: &[u8]) -> bool {
    let (net, mask) = base.split_at(base.len() / 2);
    net.len() == name.len()
        && mask.len() == name.len()
        && name.iter().zip(net).zip(mask).all(|((a, n), m)| a & m == n & m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::keys;
    use x509_parser::prelude::FromDer;

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
        assert_eq!(within(&DNSName("a.b.c"), &DNSName("b.c")), Relation::Inside);
        assert_eq!(within(&DNSName("ab.c"), &DNSName("b.c")), Relation::Outside);
        assert_eq!(within(&DNSName("b.c"), &DNSName(".b.c")), Relation::Outside);
        assert_eq!(within(&RFC822Name("u@b.c"), &RFC822Name("b.c")), Relation::Inside);
        assert_eq!(within(&RFC822Name("u@a.b.c"), &RFC822Name("b.c")), Relation::Outside);
        assert_eq!(within(&RFC822Name("v@b.c"), &RFC822Name("u@b.c")), Relation::Outside);
        let net = [10, 0, 0, 0, 255, 0, 0, 0];
        assert_eq!(within(&IPAddress(&[10, 9, 8, 7]), &IPAddress(&net)), Relation::Inside);
        assert_eq!(within(&IPAddress(&[11, 9, 8, 7]), &IPAddress(&net)), Relation::Outside);
        assert_eq!(within(&IPAddress(&[0; 16]), &IPAddress(&net)), Relation::Outside);
        assert_eq!(within(&URI("a"), &URI("a")), Relation::Unknown);
        assert_eq!(within(&URI("a"), &DNSName("a")), Relation::OtherKind);
    }
}
