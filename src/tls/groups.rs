//! Key exchange groups, which OpenSSL calls curves: `ssl_ecdh_curve` and the names of `$ssl_curve`, and the names of
//! signature schemes.

use super::error::Error;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::{NamedGroup, SignatureScheme};

/// A group: its number (IANA TLS Supported Groups), the name `$ssl_curve` has for it and the other names it has.
struct Group {
    id: u16,
    name: &'static str,
    aliases: &'static [&'static str],
}

const fn group(id: u16, name: &'static str, aliases: &'static [&'static str]) -> Group {
    Group { id, name, aliases }
}

#[rustfmt::skip]
static GROUPS: &[Group] = &[
    group(19, "prime192v1", &["P-192", "secp192r1"]),
    group(21, "secp224r1", &["P-224"]),
    group(22, "secp256k1", &[]),
    group(23, "prime256v1", &["P-256", "secp256r1"]),
    group(24, "secp384r1", &["P-384"]),
    group(25, "secp521r1", &["P-521"]),
    group(26, "brainpoolP256r1", &[]),
    group(27, "brainpoolP384r1", &[]),
    group(28, "brainpoolP512r1", &[]),
    group(29, "X25519", &[]),
    group(30, "X448", &[]),
    group(31, "brainpoolP256r1tls13", &[]),
    group(32, "brainpoolP384r1tls13", &[]),
    group(33, "brainpoolP512r1tls13", &[]),
    group(256, "ffdhe2048", &[]),
    group(257, "ffdhe3072", &[]),
    group(258, "ffdhe4096", &[]),
    group(259, "ffdhe6144", &[]),
    group(260, "ffdhe8192", &[]),
    group(512, "MLKEM512", &[]),
    group(513, "MLKEM768", &[]),
    group(514, "MLKEM1024", &[]),
    group(4587, "SecP256r1MLKEM768", &[]),
    group(4588, "X25519MLKEM768", &[]),
    group(4589, "SecP384r1MLKEM1024", &[]),
];

/// What an `ssl_ecdh_curve` list comes to.
#[derive(Clone, Default)]
pub struct Groups {
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    /// Right names of groups this program lacks: worth a warning.
    pub lacking: Vec<&'static str>,
}

/// The groups of `auto`: a post-quantum hybrid first (draft-ietf-tls-ecdhe-mlkem), as OpenSSL 3.5 has them.
pub fn default_groups() -> Vec<&'static dyn SupportedKxGroup> {
    vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]
}

fn supported(id: u16) -> Option<&'static dyn SupportedKxGroup> {
    Some(match id {
        23 => kx_group::SECP256R1,
        24 => kx_group::SECP384R1,
        29 => kx_group::X25519,
        513 => kx_group::MLKEM768,
        514 => kx_group::MLKEM1024,
        4587 => kx_group::SECP256R1MLKEM768,
        4588 => kx_group::X25519MLKEM768,
        _ => return None,
    })
}

/// Evaluates a list of groups with colons between them, or `auto`.
pub fn groups(list: &str) -> Result<Groups, Error> {
    let mut out = Groups::default();
    if list == "auto" {
        out.groups = default_groups();
        return Ok(out);
    }
    for word in list.split([':', '/']) {
        // OpenSSL 3.5: "*" asks for a key share, "?" lets an unknown name pass.
        let bare = word.trim_start_matches(['*', '?']);
        let known = GROUPS.iter().find(|g| {
            g.name.eq_ignore_ascii_case(bare) || g.aliases.iter().any(|a| a.eq_ignore_ascii_case(bare))
        });
        let Some(known) = known else {
            if word.starts_with(['*', '?']) && word.contains('?') {
                continue;
            }
            return Err(Error::Curve { list: list.to_owned(), group: bare.to_owned() });
        };
        match supported(known.id) {
            Some(group) if out.groups.iter().any(|g| g.name() == group.name()) => {}
            Some(group) => out.groups.push(group),
            None => out.lacking.push(known.name),
        }
    }
    match out.groups.is_empty() {
        true => Err(Error::NoUsableCurves { list: list.to_owned() }),
        false => Ok(out),
    }
}

/// `$ssl_curve`.
pub fn group_name(group: NamedGroup) -> String {
    name(u16::from(group))
}

fn name(id: u16) -> String {
    GROUPS.iter().find(|g| g.id == id).map_or_else(|| format!("0x{id:04x}"), |g| g.name.to_owned())
}

/// `$ssl_curves`: the names of what a client offers, those without a name in hexadecimal.
pub fn group_list(ids: &[u16]) -> String {
    ids.iter().map(|id| name(*id)).collect::<Vec<_>>().join(":")
}

/// The name of a signature scheme (RFC 8446 section 4.2.3), for `$ssl_sigalg` and `$ssl_client_sigalg`.
pub fn scheme_name(scheme: SignatureScheme) -> String {
    let name = match u16::from(scheme) {
        0x0201 => "rsa_pkcs1_sha1",
        0x0203 => "ecdsa_sha1",
        0x0401 => "rsa_pkcs1_sha256",
        0x0403 => "ecdsa_secp256r1_sha256",
        0x0501 => "rsa_pkcs1_sha384",
        0x0503 => "ecdsa_secp384r1_sha384",
        0x0601 => "rsa_pkcs1_sha512",
        0x0603 => "ecdsa_secp521r1_sha512",
        0x0804 => "rsa_pss_rsae_sha256",
        0x0805 => "rsa_pss_rsae_sha384",
        0x0806 => "rsa_pss_rsae_sha512",
        0x0807 => "ed25519",
        0x0808 => "ed448",
        0x0809 => "rsa_pss_pss_sha256",
        0x080a => "rsa_pss_pss_sha384",
        0x080b => "rsa_pss_pss_sha512",
        0x0904 => "mldsa44",
        0x0905 => "mldsa65",
        0x0906 => "mldsa87",
        other => return format!("0x{other:04x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        groups(list).unwrap().groups.iter().map(|g| group_name(g.name())).collect()
    }

    #[test]
    fn lists_of_groups() {
        assert_eq!(names("auto"), ["X25519MLKEM768", "X25519", "prime256v1", "secp384r1"]);
        assert_eq!(names("secp384r1:P-256:X25519:prime256v1"), ["secp384r1", "prime256v1", "X25519"]);
        assert_eq!(
            names("*X25519MLKEM768 / X25519:?nosuch".replace(' ', "").as_str()),
            ["X25519MLKEM768", "X25519"]
        );
        let mixed = groups("secp521r1:X25519:ffdhe2048").unwrap();
        assert_eq!(mixed.lacking, ["secp521r1", "ffdhe2048"]);
    }

    #[test]
    fn refuses_other_names() {
        assert_eq!(
            groups("X25519:foo").err().unwrap().to_string(),
            "SSL_CTX_set1_curves_list(\"X25519:foo\") failed \
             (SSL: error:0A080106:SSL routines::passed invalid argument:group 'foo' cannot be set)"
        );
        assert!(matches!(groups("secp521r1"), Err(Error::NoUsableCurves { .. })));
        assert!(groups("").is_err());
    }

    #[test]
    fn names_what_clients_offer() {
        assert_eq!(group_list(&[0x0a0a, 4588, 29, 23]), "0x0a0a:X25519MLKEM768:X25519:prime256v1");
        assert_eq!(scheme_name(SignatureScheme::RSA_PSS_SHA256), "rsa_pss_rsae_sha256");
    }
}
