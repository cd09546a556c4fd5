//! Paths of made and of fixed certificates, and OpenSSL's verdicts on them.

use super::keys;
use super::testing::{Made, Wish, ca, extension, key_usage, seq, usage};
use super::verdict::VerifyError;
use super::verify::{PathVerifier, Purpose};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;

const NOW: i64 = 1_750_000_000;

fn load(name: &str) -> Vec<CertificateDer<'static>> {
    keys::certificates(&format!("{}/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn crls() -> Vec<Vec<u8>> {
    keys::crls(&format!("{}/fixtures/tls/ca.crl", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn verifier(store: &[&str], depth: usize, purpose: Purpose) -> Arc<PathVerifier> {
    let store = store.iter().flat_map(|n| load(n)).collect();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    PathVerifier::new(store, &[], depth, purpose, &provider)
}

fn judge(store: &[&str], depth: usize, purpose: Purpose, chain: &str) -> u32 {
    verifier(store, depth, purpose).verify(&load(chain), NOW).map_or_else(|e| e.0, |()| 0)
}

#[test]
fn good_paths() {
    use Purpose::*;
    assert_eq!(judge(&["ca.crt"], 1, Client, "client.crt"), 0);
    assert_eq!(judge(&["ca.crt"], 0, Client, "client.crt"), 0);
    assert_eq!(judge(&["ca.crt"], 1, Server, "rsa.crt"), 0);
    assert_eq!(judge(&["ca.crt"], 1, Server, "cn-chain.crt"), 0);
    // The intermediate may come with the trusted certificates, and a leaf may be trusted itself.
    assert_eq!(judge(&["int.crt", "ca.crt"], 1, Client, "client-int.crt"), 0);
    assert_eq!(judge(&["self.crt"], 1, Server, "self.crt"), 0);
}

#[test]
fn verdicts_are_openssls() {
    use Purpose::*;
    assert_eq!(judge(&["self.crt"], 1, Server, "rsa.crt"), 21);
    assert_eq!(judge(&[], 1, Server, "cn-chain.crt"), 20);
    assert_eq!(judge(&["int.crt"], 1, Client, "client-int.crt"), 2);
    assert_eq!(judge(&["ca.crt"], 1, Server, "self.crt"), 18);
    assert_eq!(judge(&["ca.crt"], 0, Server, "cn-chain.crt"), 20);
    assert_eq!(judge(&["ca.crt"], 1, Server, "client.crt"), 26);
    assert_eq!(judge(&["ca.crt"], 1, Client, "rsa.crt"), 26);
    assert_eq!(judge(&["ca.crt"], 1, Server, "ca.crt"), 26);
    assert_eq!(judge(&["ca.crt"], 1, Client, "expired.crt"), 10);
    let early = verifier(&["ca.crt"], 1, Client).verify(&load("client.crt"), 1000);
    assert_eq!(early.unwrap_err().to_string(), "(9:certificate is not yet valid)");
    let mut chain = load("rsa.crt");
    chain.extend(load("ca.crt"));
    let foreign = verifier(&["self.crt"], 1, Server).verify(&chain, NOW).unwrap_err();
    assert_eq!(foreign.to_string(), "(19:self-signed certificate in certificate chain)");
    assert!(foreign.is_only_untrusted());
}

#[test]
fn a_damaged_certificate_is_bad() {
    for at in [300, 150, 200] {
        let mut der = load("rsa.crt")[0].to_vec();
        der[at] ^= 1;
        let chain = [CertificateDer::from(der)];
        assert!(verifier(&["ca.crt"], 1, Purpose::Server).verify(&chain, NOW).is_err());
    }
    let mut der = load("rsa.crt")[0].to_vec();
    *der.last_mut().unwrap() ^= 1;
    let e = verifier(&["ca.crt"], 1, Purpose::Server).verify(&[der.into()], NOW).unwrap_err();
    assert_eq!(e, VerifyError::CERT_SIGNATURE_FAILURE);
}

#[test]
fn a_leaf_cannot_sign() {
    // "self" is not issued by "other", but a chain can claim anything: only names are looked at first.
    let mut chain = load("client.crt");
    chain.extend(load("rsa.crt"));
    assert_eq!(verifier(&["self.crt"], 9, Purpose::Client).verify(&chain, NOW).unwrap_err().0, 21);
}

#[test]
fn revoked_certificates_are_told() {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let judge = |store: &[&str], chain: &str, now: i64| {
        let store = store.iter().flat_map(|n| load(n)).collect();
        PathVerifier::new(store, &crls(), 1, Purpose::Client, &provider)
            .verify(&load(chain), now)
            .map_or_else(|e| e.0, |()| 0)
    };
    assert_eq!(judge(&["ca.crt"], "revoked.crt", NOW), 23);
    assert_eq!(judge(&["ca.crt"], "client.crt", NOW), 0);
    assert_eq!(judge(&["ca.crt", "int.crt"], "client-int.crt", NOW), 3);
    assert_eq!(judge(&["self.crt"], "self.crt", NOW), 3);
}

/// The verdict on a leaf by an intermediate by a root, each with these extensions; `crls` are made by the root and
/// the intermediate.
fn made(
    root: &[Vec<u8>],
    int: &[Vec<u8>],
    leaf: &[Vec<u8>],
    crls: impl FnOnce(&Made, &Made) -> Vec<Vec<u8>>,
) -> u32 {
    let root = Made::root(&Wish { subject: "root", extensions: root, ..Wish::default() });
    let int = root.issue(&Wish { subject: "int.example", serial: 2, extensions: int, ..Wish::default() });
    let leaf = int.issue(&Wish { subject: "leaf.example", serial: 3, extensions: leaf, ..Wish::default() });
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let crls = crls(&root, &int);
    PathVerifier::new(vec![root.cert.clone()], &crls, 9, Purpose::Client, &provider)
        .verify(&[leaf.cert.clone(), int.cert.clone()], NOW)
        .map_or_else(|e| e.0, |()| 0)
}

fn no_crls(_: &Made, _: &Made) -> Vec<Vec<u8>> {
    Vec::new()
}

#[test]
fn only_cas_issue() {
    let judge = |root: &[Vec<u8>], int: &[Vec<u8>]| made(root, int, &[], no_crls);
    let ca = || ca(None);
    assert_eq!(judge(&[ca()], &[ca()]), 0);
    assert_eq!(judge(&[ca()], &[]), 26);
    // An anchor may be from before basicConstraints, nobody else.
    assert_eq!(judge(&[], &[ca()]), 0);
    assert_eq!(judge(&[key_usage(4)], &[ca()]), 0);
    assert_eq!(judge(&[ca()], &[key_usage(4)]), 79);
    assert_eq!(judge(&[ca()], &[ca(), key_usage(0x80)]), 32);
    assert_eq!(judge(&[super::testing::ca(Some(0))], &[ca()]), 25);
    assert_eq!(judge(&[super::testing::ca(Some(1))], &[super::testing::ca(Some(0))]), 0);
}

#[test]
fn what_a_certificate_is_for() {
    let judge = |leaf: &[Vec<u8>]| made(&[ca(None)], &[ca(None)], leaf, no_crls);
    assert_eq!(judge(&[usage(2)]), 0);
    assert_eq!(judge(&[usage(1)]), 26);
    assert_eq!(judge(&[key_usage(0x80)]), 0);
    assert_eq!(judge(&[key_usage(0x20)]), 26);
    // nsCertType: a client, a server.
    let netscape = |bits| extension(&[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 1, 1], false, &[3, 2, 0, bits]);
    assert_eq!(judge(&[netscape(0x80)]), 0);
    assert_eq!(judge(&[netscape(0x40)]), 26);
}

#[test]
fn critical_extensions() {
    let judge = |int: Vec<u8>| made(&[ca(None)], &[ca(None), int], &[], no_crls);
    // policyConstraints and inhibitAnyPolicy, which have to be critical; nobody asks for policies.
    assert_eq!(judge(extension(&[0x55, 0x1d, 36], true, &seq(&[&[0x80, 1, 0]]))), 0);
    assert_eq!(judge(extension(&[0x55, 0x1d, 54], true, &[2, 1, 0])), 0);
    assert_eq!(judge(extension(&[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 5], true, &[5, 0])), 0);
    assert_eq!(judge(extension(&[0x2a, 3], true, &[5, 0])), 34);
    assert_eq!(judge(extension(&[0x2a, 3], false, &[5, 0])), 0);
}

#[test]
fn constrained_names() {
    let permitted = |dns: &str| {
        let base = super::der::encode(0x82, &[dns.as_bytes()]);
        let permitted = super::der::encode(0xa0, &[&seq(&[&base])]);
        extension(&[0x55, 0x1d, 30], true, &seq(&[&permitted]))
    };
    let judge = |dns: &str| made(&[ca(None), permitted(dns)], &[ca(None)], &[], no_crls);
    // The common name of the leaf is one of a host, that of a CA is not.
    assert_eq!(judge("leaf.example"), 0);
    assert_eq!(judge("example"), 0);
    assert_eq!(judge("int.example"), 47);
}

#[test]
fn revocation_lists() {
    let judge = |leaf: &[Vec<u8>], crls: &dyn Fn(&Made, &Made) -> Vec<Vec<u8>>| {
        made(&[ca(None)], &[ca(None)], leaf, |root, int| crls(root, int))
    };
    assert_eq!(judge(&[], &|root, int| vec![root.crl(0, &[], &[]), int.crl(0, &[9], &[])]), 0);
    assert_eq!(judge(&[], &|root, int| vec![root.crl(0, &[], &[]), int.crl(0, &[9, 3], &[])]), 23);
    assert_eq!(judge(&[], &|root, int| vec![root.crl(0, &[2], &[]), int.crl(0, &[], &[])]), 23);
    assert_eq!(judge(&[], &|_, int| vec![int.crl(0, &[], &[])]), 3);
    // Of several the newest that is valid already.
    let many = |root: &Made, int: &Made| {
        vec![root.crl(0, &[], &[]), int.crl(20, &[3], &[]), int.crl(1, &[3], &[]), int.crl(2, &[], &[])]
    };
    assert_eq!(judge(&[], &many), 0);
    assert_eq!(judge(&[], &|root, int| vec![root.crl(0, &[], &[]), int.crl(20, &[], &[])]), 11);
    // A list with something unknown in it still revokes.
    let odd = || extension(&[0x2a, 3], true, &[5, 0]);
    assert_eq!(judge(&[], &|root, int| vec![root.crl(0, &[], &[]), int.crl(0, &[], &[odd()])]), 36);
    assert_eq!(judge(&[], &|root, int| vec![root.crl(0, &[], &[]), int.crl(0, &[3], &[odd()])]), 23);
}

#[test]
fn lists_of_a_part() {
    let full_name = |url: &str| super::der::encode(0xa0, &[&super::der::encode(0x86, &[url.as_bytes()])]);
    let part = |content: &[u8]| extension(&[0x55, 0x1d, 28], true, &seq(&[content]));
    let from = |url: &str| part(&super::der::encode(0xa0, &[&full_name(url)]));
    let judge = |leaf: &[Vec<u8>], part: &Vec<u8>, revoked: &[u8]| {
        made(&[ca(None)], &[ca(None)], leaf, |root, int| {
            vec![root.crl(0, &[], &[]), int.crl(0, revoked, std::slice::from_ref(part))]
        })
    };
    let users = part(&[0x81, 1, 0xff]);
    assert_eq!(judge(&[], &users, &[]), 0);
    assert_eq!(judge(&[], &users, &[3]), 23);
    assert_eq!(judge(&[], &part(&[0x82, 1, 0xff]), &[]), 44);
    // Indirect lists are not understood.
    assert_eq!(judge(&[], &part(&[0x84, 1, 0xff]), &[]), 36);
    let points = |url: &str| {
        let point = seq(&[&super::der::encode(0xa0, &[&full_name(url)])]);
        [extension(&[0x55, 0x1d, 31], false, &seq(&[&point]))]
    };
    assert_eq!(judge(&points("http://c/1"), &from("http://c/1"), &[]), 0);
    assert_eq!(judge(&points("http://c/1"), &from("http://c/2"), &[]), 44);
    assert_eq!(judge(&[], &from("http://c/1"), &[]), 44);
}
