//! What comes of looking at a certificate: OpenSSL's error numbers (`X509_V_ERR_*`) and words.

use std::fmt;

/// Why a certificate is not trusted: OpenSSL's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyError(pub u32);

// === impl VerifyError ===

impl VerifyError {
    pub(super) const UNSPECIFIED: Self = VerifyError(1);
    pub(super) const UNABLE_TO_GET_ISSUER_CERT: Self = VerifyError(2);
    pub(super) const UNABLE_TO_GET_CRL: Self = VerifyError(3);
    pub(super) const CERT_SIGNATURE_FAILURE: Self = VerifyError(7);
    pub(super) const CRL_SIGNATURE_FAILURE: Self = VerifyError(8);
    pub(super) const CERT_NOT_YET_VALID: Self = VerifyError(9);
    pub(super) const CERT_HAS_EXPIRED: Self = VerifyError(10);
    pub(super) const CRL_NOT_YET_VALID: Self = VerifyError(11);
    pub(super) const CRL_HAS_EXPIRED: Self = VerifyError(12);
    pub(super) const DEPTH_ZERO_SELF_SIGNED_CERT: Self = VerifyError(18);
    pub(super) const SELF_SIGNED_CERT_IN_CHAIN: Self = VerifyError(19);
    pub(super) const UNABLE_TO_GET_ISSUER_CERT_LOCALLY: Self = VerifyError(20);
    pub(super) const UNABLE_TO_VERIFY_LEAF_SIGNATURE: Self = VerifyError(21);
    pub(super) const CERT_CHAIN_TOO_LONG: Self = VerifyError(22);
    pub(super) const CERT_REVOKED: Self = VerifyError(23);
    pub(super) const PATH_LENGTH_EXCEEDED: Self = VerifyError(25);
    pub(super) const INVALID_PURPOSE: Self = VerifyError(26);
    pub(super) const KEYUSAGE_NO_CERTSIGN: Self = VerifyError(32);
    pub(super) const UNABLE_TO_GET_CRL_ISSUER: Self = VerifyError(33);
    pub(super) const UNHANDLED_CRITICAL_EXTENSION: Self = VerifyError(34);
    pub(super) const KEYUSAGE_NO_CRL_SIGN: Self = VerifyError(35);
    pub(super) const UNHANDLED_CRITICAL_CRL_EXTENSION: Self = VerifyError(36);
    pub(super) const INVALID_EXTENSION: Self = VerifyError(41);
    pub(super) const DIFFERENT_CRL_SCOPE: Self = VerifyError(44);
    pub(super) const PERMITTED_VIOLATION: Self = VerifyError(47);
    pub(super) const EXCLUDED_VIOLATION: Self = VerifyError(48);
    pub(super) const UNSUPPORTED_CONSTRAINT_TYPE: Self = VerifyError(51);
    pub(super) const UNSUPPORTED_NAME_SYNTAX: Self = VerifyError(53);
    pub(super) const CA_MD_TOO_WEAK: Self = VerifyError(68);
    pub(super) const INVALID_CA: Self = VerifyError(79);

    /// Whether `ssl_verify_client optional_no_ca` lets it pass: only the trust anchor is missing.
    pub fn is_only_untrusted(self) -> bool {
        matches!(self.0, 18 | 19 | 20 | 21 | 27)
    }

    /// OpenSSL's words.
    pub fn reason(self) -> &'static str {
        match self.0 {
            2 => "unable to get issuer certificate",
            3 => "unable to get certificate CRL",
            7 => "certificate signature failure",
            8 => "CRL signature failure",
            9 => "certificate is not yet valid",
            10 => "certificate has expired",
            11 => "CRL is not yet valid",
            12 => "CRL has expired",
            18 => "self-signed certificate",
            19 => "self-signed certificate in certificate chain",
            20 => "unable to get local issuer certificate",
            21 => "unable to verify the first certificate",
            22 => "certificate chain too long",
            23 => "certificate revoked",
            25 => "path length constraint exceeded",
            26 => "unsuitable certificate purpose",
            32 => "key usage does not include certificate signing",
            33 => "unable to get CRL issuer certificate",
            34 => "unhandled critical extension",
            35 => "key usage does not include CRL signing",
            36 => "unhandled critical CRL extension",
            41 => "invalid or inconsistent certificate extension",
            44 => "different CRL scope",
            47 => "permitted subtree violation",
            48 => "excluded subtree violation",
            51 => "unsupported name constraint type",
            53 => "unsupported or invalid name syntax",
            68 => "CA signature digest algorithm too weak",
            79 => "invalid CA certificate",
            _ => "unspecified certificate verification error",
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}:{})", self.0, self.reason())
    }
}

impl std::error::Error for VerifyError {}

/// The verdict while steps go on: nothing turns it back to good. Under nginx's callback the last error stands, without
/// one the first.
#[derive(Default)]
pub(super) struct Verdict {
    error: Option<VerifyError>,
    first: bool,
}

// === impl Verdict ===

impl Verdict {
    /// One whose first error stands.
    pub(super) fn of_first() -> Self {
        Verdict { error: None, first: true }
    }

    pub(super) fn bad(&mut self, e: VerifyError) {
        if self.error.is_none() || !self.first {
            self.error = Some(e);
        }
    }

    pub(super) fn result(&self) -> Result<(), VerifyError> {
        self.error.map_or(Ok(()), Err)
    }
}
