//! Certificates and keys whose names have variables: which they are is known with every connection.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Context, Template};
use crate::tls::{CertificateCache, CertifiedKey, Error, ForConnection, Objects};

/// A certificate and its key, as written.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: Template,
    pub key: Template,
}

/// Certificate and key of one connection: paths, or `data:` values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Names {
    pub certificate: String,
    pub key: String,
}

/// Where certificates are found, and what opens their keys.
#[derive(Clone, Debug)]
pub struct Store {
    /// `*_certificate_cache`
    pub cache: Option<Arc<CertificateCache>>,
    /// Lines of `*_password_file`.
    pub passwords: Vec<Vec<u8>>,
    /// Where relative paths start.
    pub prefix: PathBuf,
}

impl Pair {
    /// Whether either has variables.
    pub fn varies(&self) -> bool {
        self.certificate.as_constant().is_none() || self.key.as_constant().is_none()
    }
}

impl Store {
    /// The names of `pair` now; none where the certificate is empty.
    pub fn names<C: Context>(&self, pair: &Pair, ctx: &C) -> Option<Names> {
        let certificate = pair.certificate.eval(ctx);
        (!certificate.is_empty())
            .then(|| Names { certificate: self.path(&certificate), key: self.path(&pair.key.eval(ctx)) })
    }

    /// Loads what `names` says.
    ///
    /// # Errors
    /// What nginx logs at `[error]`.
    pub fn load(&self, names: &Names) -> Result<CertifiedKey, Error> {
        let objects = ForConnection::new(self.cache.as_deref());
        objects.certified_key(&names.certificate, &names.key, &self.passwords)
    }

    fn path(&self, text: &[u8]) -> String {
        let text = String::from_utf8_lossy(text).into_owned();
        match ["data:", "engine:", "store:"].iter().any(|scheme| text.starts_with(scheme)) {
            true => text,
            false => self.prefix.join(text).to_string_lossy().into_owned(),
        }
    }
}

/// All certificates of a server.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub pairs: Vec<Pair>,
    pub store: Store,
}

impl Certificates {
    /// Loads all of them, each as it is named for `ctx`. An empty name is the folder that paths start in, and no
    /// certificate.
    ///
    /// # Errors
    /// What nginx logs at `[error]`.
    pub fn load<C: Context>(&self, ctx: &C) -> Result<Vec<CertifiedKey>, Error> {
        let path = |template: &Template| self.store.path(&template.eval(ctx));
        let names = self
            .pairs
            .iter()
            .map(|pair| Names { certificate: path(&pair.certificate), key: path(&pair.key) });
        names.map(|names| self.store.load(&names)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{builder, ctx};
    use super::*;

    fn fixtures() -> String {
        format!("{}/fixtures/tls", env!("CARGO_MANIFEST_DIR"))
    }

    fn store() -> Store {
        Store { cache: None, passwords: Vec::new(), prefix: PathBuf::from(fixtures()) }
    }

    #[test]
    fn names_are_paths_or_the_text_itself() {
        let mut vars = builder();
        let mut pair = |certificate: &str, key: &str| Pair {
            certificate: Template::parse(certificate.as_bytes(), &mut vars).unwrap(),
            key: Template::parse(key.as_bytes(), &mut vars).unwrap(),
        };
        let pairs = [pair("$test.crt", "/k/$test"), pair("data:$test", "engine:e:$test"), pair("", "$test")];
        assert!(pairs.iter().all(Pair::varies));
        let constant = pair("a", "b");
        assert!(!constant.varies());
        let ctx = ctx(vars);
        let names: Vec<_> = pairs.iter().map(|pair| store().names(pair, &ctx)).collect();
        let name = |certificate: &str, key: &str| {
            Some(Names { certificate: certificate.to_owned(), key: key.to_owned() })
        };
        assert_eq!(names[0], name(&format!("{}/test value.crt", fixtures()), "/k/test value"));
        assert_eq!(names[1], name("data:test value", "engine:e:test value"));
        assert_eq!(names[2], None);
    }

    #[test]
    fn all_certificates_of_a_server_are_loaded() {
        let mut vars = builder();
        let pair = |name: &str| Pair {
            certificate: Template::constant(format!("{name}.crt")),
            key: Template::constant(format!("{name}.key")),
        };
        let nosuch = Pair {
            certificate: Template::parse(b"$test.crt", &mut vars).unwrap(),
            key: Template::constant("ecdsa.key"),
        };
        let ctx = ctx(vars);
        let all = Certificates { pairs: vec![pair("ecdsa"), pair("rsa")], store: store() };
        assert_eq!(all.load(&ctx).unwrap().len(), 2);
        let all = Certificates { pairs: vec![pair("ecdsa"), nosuch], store: store() };
        let error = all.load(&ctx).unwrap_err().to_string();
        assert!(error.starts_with("cannot load certificate \"") && error.contains("no such file"), "{error}");
    }
}
