//! What `User-Agent` says of some browsers that are treated differently.

use super::headers::USER_AGENT;
use super::request::Request;

/// The browser behind a request, as far as anything depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Browser {
    /// Internet Explorer.
    pub msie: bool,
    /// Internet Explorer 6 without its service pack, or older.
    pub msie6: bool,
    /// Chrome.
    pub chrome: bool,
    /// Safari on a Mac.
    pub safari: bool,
}

impl Browser {
    /// The browser that calls itself `agent`.
    pub fn of(agent: &[u8]) -> Browser {
        let has = |word: &str| memchr::memmem::find(agent, word.as_bytes()).is_some();
        if has("Opera") {
            return Browser::default();
        }
        let version = memchr::memmem::find(agent, b"MSIE ").map(|at| &agent[at + 5..]);
        if let Some([major, minor, rest @ ..]) = version
            && !rest.is_empty()
        {
            let msie6 = *minor == b'.'
                && match major {
                    b'4' | b'5' => true,
                    b'6' => memchr::memmem::find(&rest[1..], b"SV1").is_none(),
                    _ => false,
                };
            return Browser { msie: true, msie6, ..Browser::default() };
        }
        let gecko = has("Gecko/");
        let chrome = !gecko && has("Chrome/");
        let safari = !gecko && !chrome && has("Safari/") && has("Mac OS X");
        Browser { chrome, safari, ..Browser::default() }
    }
}

impl Request {
    /// The browser that the client says it is.
    pub fn browser(&self) -> Browser {
        self.header(USER_AGENT).map_or_else(Browser::default, Browser::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_by_their_names() {
        let none = Browser::default();
        let msie = Browser { msie: true, ..none };
        for (agent, want) in [
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", Browser { msie6: true, ..msie }),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", msie),
            ("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1)", msie),
            ("Mozilla/4.0 (compatible; MSIE 6.0; X11) Opera 7.50", none),
            ("MSIE 5.0", Browser { msie6: true, ..msie }),
            ("MSIE 5.", none),
            ("Mozilla/5.0 (X11) AppleWebKit/1 Chrome/1 Safari/1", Browser { chrome: true, ..none }),
            ("Mozilla/5.0 (Mac OS X) AppleWebKit/1 Safari/1", Browser { safari: true, ..none }),
            ("Mozilla/5.0 (Mac OS X) Gecko/1 Safari/1", none),
            ("curl/8", none),
        ] {
            assert_eq!(Browser::of(agent.as_bytes()), want, "{agent}");
        }
    }
}
