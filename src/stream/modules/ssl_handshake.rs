//! The `ssl` phase: a client's handshake, by the settings of [`super::ssl`].

use std::sync::Arc;

use crate::log::Level;
use crate::net::{Deadline, Io, Socket};
use crate::stream::module::{INTERNAL_ERROR, Verdict, Wait};
use crate::stream::session::Session;
use crate::tls::{self, Asking, Choice, Peer, VerifyMode, ocsp};

/// Shakes hands with the client, and holds its certificate to `ssl_verify_client`.
pub(super) fn handler(s: &mut Session) -> Wait<'_, Verdict> {
    Box::pin(async move {
        if s.server.srv.core.tcp_nodelay.then(|| s.no_delay()).is_some_and(|set| set.is_err()) {
            return Verdict::End(INTERNAL_ERROR);
        }
        let Some(Io::Plain(socket)) = s.io.take() else { return Verdict::End(INTERNAL_ERROR) };
        s.action.set(Some("SSL handshaking"));
        let deadline = Deadline::never();
        deadline.set(*s.server.srv.ssl.handshake_timeout);
        let choose = |asking: &Asking<'_, Socket>| {
            if let Some(name) = asking.name() {
                s.choose_server(name.as_bytes());
            }
            choice(s, asking)
        };
        let mut shaken = deadline.limit(tls::accept(socket, choose)).await;
        if let Some(Ok(stream)) = &mut shaken
            && deadline.limit(stream.check_status(|| status_log(s))).await.is_none()
        {
            shaken = None;
        }
        match shaken {
            Some(Ok(stream)) => {
                s.tls = Some(stream.info().clone());
                s.io = Some(Io::tls(stream));
                check_certificate(s)
            }
            Some(Err(error)) => {
                s.error(error.level(Peer::Client).into(), format_args!("{error}"));
                Verdict::End(INTERNAL_ERROR)
            }
            None => Verdict::End(INTERNAL_ERROR),
        }
    })
}

/// Where questions about a client's certificate are logged.
fn status_log(s: &Session) -> ocsp::Log {
    let (log, connection) = (s.server.log().clone(), Some(s.number));
    ocsp::Log { log, connection, context: s.doing().to_string() }
}

/// What the session's server shows, or the address's default server where it has no certificates.
fn choice(s: &mut Session, asking: &Asking<'_, Socket>) -> Choice {
    let own = &s.server.srv.ssl;
    let default = s.stream.servers.get(s.addr.default).map(|server| &server.srv.ssl);
    let shown = match own.server.is_some() {
        true => Some(own),
        false => default,
    };
    let Some((shown, server)) = shown.and_then(|shown| Some((shown, shown.server.as_ref()?))) else {
        return Choice::Reject;
    };
    if *own.reject_handshake {
        return Choice::Reject;
    }
    let Some(certificates) = &*shown.varying else { return Choice::Serve(server.clone()) };
    s.tls = Some(Arc::new(asking.info(server)));
    s.find_local(asking.io());
    match certificates.load(s) {
        Ok(keys) => Choice::Serve(server.showing(keys)),
        Err(error) => {
            s.error(Level::Error, format_args!("{error}"));
            Choice::NoCertificate
        }
    }
}

/// What `ssl_verify_client` demands.
fn check_certificate(s: &Session) -> Verdict {
    let mode = *s.server.srv.ssl.verify;
    let Some(info) = s.tls.as_ref().filter(|_| mode != VerifyMode::Off) else { return Verdict::Done };
    if let Some(Err(error)) = info.verdict
        && !(mode == VerifyMode::OptionalNoCa && error.is_only_untrusted())
    {
        s.error(Level::Info, format_args!("client SSL certificate verify error: {error}"));
        return Verdict::End(INTERNAL_ERROR);
    }
    if mode == VerifyMode::On && info.certificate().is_none() {
        s.error(Level::Info, format_args!("client sent no required SSL certificate"));
        return Verdict::End(INTERNAL_ERROR);
    }
    if let Err(error) = info.status {
        s.error(Level::Info, format_args!("client SSL certificate verify error: {error}"));
        return Verdict::End(INTERNAL_ERROR);
    }
    Verdict::Done
}
