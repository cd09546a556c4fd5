//! Responses of all kinds, and whether they are believed.

use super::inquiry::now;
use super::judge::{self, Trust};
use super::response::{Single, Status, read};
use super::staple::{Staple, Stapling};
use crate::tls::testing::{Made, Say, Wish, ca, responder, usage};
use crate::tls::verify::{PathVerifier, Purpose};
use proptest::prelude::*;
use std::sync::Arc;

/// A root, an intermediate under it and a certificate under that.
pub(super) struct Pki {
    pub root: Made,
    pub int: Made,
    pub leaf: Made,
}

pub(super) fn pki(url: Option<&str>) -> Pki {
    let root = Made::root(&Wish { subject: "root", extensions: &[ca(None)], ..Wish::default() });
    let aia: Vec<Vec<u8>> = url.map(responder).into_iter().collect();
    let above = [vec![ca(None)], aia.clone()].concat();
    let int = root.issue(&Wish { subject: "int", serial: 2, extensions: &above, ..Wish::default() });
    let leaf = int.issue(&Wish { subject: "leaf", serial: 3, extensions: &aia, ..Wish::default() });
    Pki { root, int, leaf }
}

pub(super) fn verifier(anchors: &[&Made]) -> Arc<PathVerifier> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let store = anchors.iter().map(|m| m.cert.clone()).collect();
    PathVerifier::new(store, &[], 100, Purpose::Responder, &provider)
}

const THIS: &str = "20200101000000Z";
const NEXT: &str = "20991231000000Z";

pub(super) fn say<'a>(about: &'a [(&'a Made, Status)], issuer: &'a Made, signer: &'a Made) -> Say<'a> {
    Say { about, issuer, signer, with: &[], by_key: false, this: THIS, next: Some(NEXT) }
}

fn judged(say: &Say<'_>, chain: &[&Made], anchors: &[&Made], trust: Trust) -> String {
    let response = say.response();
    let basic = read(&response).unwrap();
    let chain: Vec<_> = chain.iter().map(|m| m.cert.clone()).collect();
    match judge::signer(&basic, &chain, &verifier(anchors), trust, now()) {
        Ok(()) => "good".to_owned(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn the_issuer_or_its_delegate_signs() {
    let Pki { root, int, leaf } = pki(None);
    let about = [(&leaf, Status::Good)];
    let all = [&leaf, &int, &root];
    let by_int = say(&about, &int, &int);
    assert_eq!(judged(&by_int, &all, &[&root], Trust::Path), "good");
    assert_eq!(judged(&Say { by_key: true, ..by_int }, &all, &[&root], Trust::Path), "good");
    // The signer comes along, but nobody knows its root.
    let with = [&int];
    let unknown = judged(&Say { with: &with, ..say(&about, &int, &int) }, &[], &[], Trust::Path);
    assert_eq!(
        unknown,
        "OCSP_basic_verify() failed (SSL: error:13800065:OCSP routines::certificate verify error:\
         Verify error: unable to get local issuer certificate)"
    );
    assert_eq!(judged(&Say { with: &with, ..say(&about, &int, &int) }, &[], &[], Trust::Anyone), "good");
    assert_eq!(judged(&say(&about, &int, &int), &[&int], &[], Trust::Chain), "good");
    assert_eq!(
        judged(&say(&about, &int, &int), &[], &[&root], Trust::Anyone),
        "OCSP_basic_verify() failed (SSL: error:13800076:OCSP routines::signer certificate not found)"
    );
    let not_trusted = "OCSP_basic_verify() failed (SSL: error:13800070:OCSP routines::root ca not trusted)";
    assert_eq!(judged(&say(&about, &int, &root), &all, &[&root], Trust::Path), not_trusted);

    let wish = |extensions| Wish { subject: "responder", serial: 9, extensions, ..Wish::default() };
    let (charged, plain) = ([usage(9)], [usage(2)]);
    let delegate = int.issue(&wish(&charged));
    let with = [&delegate];
    let delegated = Say { with: &with, ..say(&about, &int, &delegate) };
    assert_eq!(judged(&delegated, &all, &[&root], Trust::Path), "good");
    let other = int.issue(&wish(&plain));
    let with = [&other];
    let not_delegated = Say { with: &with, ..say(&about, &int, &other) };
    assert_eq!(
        judged(&not_delegated, &all, &[&root], Trust::Path),
        "OCSP_basic_verify() failed (SSL: error:13800067:OCSP routines::missing ocspsigning usage \
         error:13800070:OCSP routines::root ca not trusted)"
    );
    // Charged by somebody else.
    let foreign = root.issue(&wish(&charged));
    let with = [&foreign];
    let by_foreign = Say { with: &with, ..say(&about, &int, &foreign) };
    assert_eq!(judged(&by_foreign, &all, &[&root], Trust::Path), not_trusted);
}

#[test]
fn a_signature_is_of_all_that_is_said() {
    let Pki { root, int, leaf } = pki(None);
    let mut response = say(&[(&leaf, Status::Revoked)], &int, &int).response();
    let chain = [int.cert.clone()];
    let verifier = verifier(&[&root]);
    // The serial number stands in front of the status.
    let at = response.windows(5).position(|w| w == [2, 1, 3, 0xa1, 17]).unwrap();
    response[at + 2] = 4;
    let basic = read(&response).unwrap();
    for trust in [Trust::Anyone, Trust::Chain, Trust::Path] {
        assert_eq!(
            judge::signer(&basic, &chain, &verifier, trust, now()).unwrap_err().to_string(),
            "OCSP_basic_verify() failed (SSL: error:13800075:OCSP routines::signature failure)"
        );
    }
}

#[test]
fn responses_have_their_time() {
    let single = |this: &'static str, next: Option<&'static str>| Single {
        hash: &[],
        name_hash: &[],
        key_hash: &[],
        serial: &[],
        status: Status::Good,
        this_update: this.as_bytes(),
        next_update: next.map(str::as_bytes),
    };
    let at = 951_868_799; // 2000-02-29 23:59:59
    let words = |this, next| judge::is_timely(&single(this, next), at).unwrap_err();
    assert_eq!(judge::is_timely(&single("20000229000000Z", None), at), Ok(None));
    assert_eq!(judge::is_timely(&single("20000301000459Z", None), at), Ok(None));
    assert_eq!(judge::is_timely(&single("20000229000000Z", Some("20000229235459Z")), at), Ok(Some(at - 300)));
    for (this, next, reason) in [
        ("20000301000500Z", None, "1380007E:OCSP routines::status not yet valid"),
        ("20000229000000Z", Some("20000229235458Z"), "1380007D:OCSP routines::status expired"),
        ("20000301000400Z", Some("20000301000300Z"), "1380007C:OCSP routines::nextupdate before thisupdate"),
        ("x", None, "1380007B:OCSP routines::error in thisupdate field"),
        ("20000229000000Z", Some("x"), "1380007A:OCSP routines::error in nextupdate field"),
    ] {
        assert_eq!(words(this, next), format!("OCSP_check_validity() failed (SSL: error:{reason})"));
    }
}

#[test]
fn staples_are_renewed_before_they_end() {
    let Pki { root, int, leaf } = pki(Some("http://127.0.0.1:1/"));
    let key = Arc::new(leaf.certified(&[&int]));
    let new = |stapling: &Stapling| Staple::new(&key, "leaf.crt", stapling, &verifier(&[&root]));
    let staple = new(&Stapling::default()).unwrap();
    let stapled = |now| staple.current(now).ocsp.clone();
    assert!(staple.is_due(1000));
    assert!(!staple.is_due(1000), "it is being fetched");
    staple.done();
    staple.keep(None, 1000);
    assert!(!staple.is_due(1300));
    assert!(staple.is_due(1301));
    staple.done();
    staple.keep(Some((b"a".to_vec(), Some(2000))), 1000);
    assert_eq!(stapled(2000).as_deref(), Some(&b"a"[..]));
    assert_eq!(stapled(2001), None);
    assert!(!staple.is_due(1700));
    assert!(staple.is_due(1701));
    staple.done();
    // A failure leaves what is good still.
    staple.keep(None, 1701);
    assert_eq!(stapled(2000).as_deref(), Some(&b"a"[..]));
    staple.keep(Some((b"b".to_vec(), None)), 1000);
    assert_eq!(stapled(i64::MAX).as_deref(), Some(&b"b"[..]));
    assert!(!staple.is_due(4600));
    assert!(staple.is_due(4601));
    staple.done();
    // Almost over when it comes.
    staple.keep(Some((b"c".to_vec(), Some(1100))), 1000);
    assert!(!staple.is_due(1300));
}

#[test]
fn what_cannot_be_stapled_is_said() {
    let Pki { root, int, leaf } = pki(None);
    let said = |key: &Made, chain: &[&Made], responder: &str, anchors: &[&Made]| {
        let stapling = Stapling { responder: responder.into(), ..Stapling::default() };
        let key = Arc::new(key.certified(chain));
        Staple::new(&key, "a.crt", &stapling, &verifier(anchors)).err().map(|e| e.to_string())
    };
    let ignored = |why: &str| Some(format!("\"ssl_stapling\" ignored, {why}"));
    let url = "http://127.0.0.1:1";
    assert_eq!(
        said(&leaf, &[], url, &[&root]),
        ignored("issuer certificate not found for certificate \"a.crt\"")
    );
    assert_eq!(said(&leaf, &[&int], url, &[]), None);
    assert_eq!(said(&leaf, &[], url, &[&int]), None);
    assert_eq!(said(&leaf, &[&int], "", &[]), ignored("no OCSP responder URL in the certificate \"a.crt\""));
    let no_http = "invalid URL prefix in OCSP responder \"https://r/\" in the certificate \"a.crt\"";
    assert_eq!(said(&leaf, &[&int], "https://r/", &[]), ignored(no_http));
    let no_port = "invalid port in OCSP responder \"127.0.0.1:0\" in the certificate \"a.crt\"";
    assert_eq!(said(&leaf, &[&int], "http://127.0.0.1:0", &[]), ignored(no_port));
}

proptest! {
    /// Whatever is wrong with a response, it is refused rather than believed, and nothing breaks.
    #[test]
    fn damaged_responses_are_not_believed(at in 0usize..400, bit in 0u8..8, cut in 0usize..400) {
        let Pki { root, int, leaf } = pki(None);
        let response = say(&[(&leaf, Status::Good)], &int, &int).response();
        let mut damaged = response.clone();
        let at = at % damaged.len();
        damaged[at] ^= 1 << bit;
        let chain = [int.cert.clone()];
        if let Ok(basic) = read(&damaged) {
            let _ = judge::signer(&basic, &chain, &verifier(&[&root]), Trust::Path, now());
        }
        prop_assert!(read(&response[..cut % response.len()]).is_err());
    }
}
