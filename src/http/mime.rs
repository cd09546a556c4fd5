//! `types`: from a file name's extension to a MIME type.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::request::Request;
use crate::conf::Outcome;
use crate::log::Level;
use crate::syntax::Items;
use crate::value::entries::entries;

/// Extensions, lower-case, and their types.
#[derive(Clone, Debug, Default)]
pub struct Types(HashMap<Box<[u8]>, Bytes>);

impl Request {
    /// Gives the response the type of the URI's extension, or the default, unless it has one.
    pub fn set_content_type(&mut self) {
        if self.response.content_type.is_none() {
            let core = &self.conf.core;
            let known = core.types.get(self.extension());
            self.response.content_type = Some(known.unwrap_or_else(|| (*core.default_type).clone()));
        }
    }
}

impl Types {
    /// What nginx has without a `types` block.
    pub fn standard() -> Arc<Types> {
        static STANDARD: OnceLock<Arc<Types>> = OnceLock::new();
        STANDARD
            .get_or_init(|| {
                let known = [("html", "text/html"), ("gif", "image/gif"), ("jpg", "image/jpeg")];
                let entry = |(ext, t): (&str, &'static str)| {
                    (ext.as_bytes().into(), Bytes::from_static(t.as_bytes()))
                };
                Arc::new(Types(known.map(entry).into_iter().collect()))
            })
            .clone()
    }

    /// The type of a file name's extension.
    pub fn get(&self, extension: &[u8]) -> Option<Bytes> {
        self.0.get(&*extension.to_ascii_lowercase()).cloned()
    }

    /// Reads the lines of a `types` block.
    pub fn read(&mut self, items: Items<'_>, messages: &mut Vec<(Level, String)>) -> Outcome {
        entries(items, &mut |d| {
            let value = Bytes::copy_from_slice(d.name());
            for extension in d.args() {
                let old = self.0.insert(extension.to_ascii_lowercase().into(), value.clone());
                if let Some(old) = old {
                    messages.push((
                        Level::Warn,
                        format!(
                            "duplicate extension \"{}\", content type: \"{}\", previous content type: \"{}\"{}",
                            String::from_utf8_lossy(extension),
                            String::from_utf8_lossy(&value),
                            String::from_utf8_lossy(&old),
                            d.at()
                        ),
                    ));
                }
            }
            Ok(())
        })
    }
}
