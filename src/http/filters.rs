//! The filters that a body passes on its way out, and what came out of them.

use bytes::Bytes;

use super::module::BodyFilter;
use super::modules::range::Ranges;
use super::output::Gone;
use super::request::Request;

/// In nginx's order: the parts that the client asked for, the filters in front of the place where bodies of
/// subrequests come in, and those behind it.
#[derive(Default)]
pub(super) struct Filters {
    /// The parts of the body that the client asked for.
    pub(super) ranges: Option<Box<Ranges>>,
    front: Vec<Box<dyn BodyFilter>>,
    late: Vec<Box<dyn BodyFilter>>,
    /// URIs of subrequests whose bodies stand in front of and behind the response's.
    pub(super) additions: (Option<Bytes>, Option<Bytes>),
    /// What came out and was not sent yet.
    pub(super) out: Vec<u8>,
    spare: Spare,
}

/// What is between one filter and the next; the memory is used for every piece.
#[derive(Default)]
struct Spare {
    wanted: Vec<u8>,
    from: Vec<u8>,
    to: Vec<u8>,
}

type List = [Box<dyn BodyFilter>];

impl Spare {
    /// Runs bytes through filters, one after the other, into `out`.
    fn run(
        &mut self,
        filters: (&mut List, &mut List),
        req: &Request,
        bytes: &[u8],
        last: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        let mut left = filters.0.len() + filters.1.len();
        if left == 0 {
            out.extend_from_slice(bytes);
        }
        let mut first = true;
        for filter in filters.0.iter_mut().chain(filters.1) {
            left -= 1;
            let input = if first { bytes } else { &self.from };
            if left == 0 {
                return filter.filter(req, input, last, out);
            }
            self.to.clear();
            filter.filter(req, input, last, &mut self.to)?;
            std::mem::swap(&mut self.from, &mut self.to);
            first = false;
        }
        Ok(())
    }
}

impl Filters {
    /// Puts a filter behind those that are there.
    pub(super) fn push(&mut self, filter: Box<dyn BodyFilter>) {
        self.front.push(filter);
    }

    /// Puts a filter behind the place where bodies of subrequests come in.
    pub(super) fn push_late(&mut self, filter: Box<dyn BodyFilter>) {
        self.late.push(filter);
    }

    /// Whether a filter changes the body.
    pub(super) fn any(&self) -> bool {
        !self.front.is_empty() || !self.late.is_empty() || self.ranges.is_some()
    }

    /// Whether one changes what comes of subrequests.
    pub(super) fn any_late(&self) -> bool {
        !self.late.is_empty() || !self.out.is_empty()
    }

    /// Takes a piece of the body.
    pub(super) fn run(&mut self, req: &Request, bytes: &[u8]) -> Result<(), Gone> {
        let mut wanted = std::mem::take(&mut self.spare.wanted);
        let bytes = match &mut self.ranges {
            Some(ranges) => {
                wanted.clear();
                ranges.filter(req, bytes, &mut wanted)?;
                &wanted
            }
            None => bytes,
        };
        self.spare.run((&mut self.front, &mut self.late), req, bytes, false, &mut self.out)?;
        self.spare.wanted = wanted;
        Ok(())
    }

    /// Takes a piece of a subrequest's body.
    pub(super) fn run_late(&mut self, req: &Request, bytes: &[u8], last: bool) -> Result<(), Gone> {
        self.spare.run((&mut self.late, &mut []), req, bytes, last, &mut self.out)
    }

    /// The response's own body is at its end; whether all is.
    pub(super) fn end(&mut self, req: &Request, last: bool) -> Result<(), Gone> {
        if last {
            return self.spare.run((&mut self.front, &mut self.late), req, b"", true, &mut self.out);
        }
        let mut end = Vec::new();
        self.spare.run((&mut self.front, &mut []), req, b"", true, &mut end)?;
        // Nothing of what follows is theirs.
        self.front.clear();
        self.run_late(req, &end, false)
    }

    /// Lets the filters give what they hold back, each through those behind it.
    pub(super) fn flush(&mut self, req: &Request) -> Result<(), Gone> {
        let mut held = Vec::new();
        for i in 0..self.front.len() + self.late.len() {
            let (filter, behind) = match i.checked_sub(self.front.len()) {
                None => {
                    let (filter, behind) = self.front.split_at_mut(i + 1);
                    (filter, (behind, &mut self.late[..]))
                }
                Some(i) => {
                    let (filter, behind) = self.late.split_at_mut(i + 1);
                    (filter, (behind, &mut [][..]))
                }
            };
            let Some(filter) = filter.last_mut() else { continue };
            held.clear();
            filter.flush(req, &mut held);
            if !held.is_empty() {
                self.spare.run(behind, req, &held, false, &mut self.out)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Folder, Site};
    use std::io::Read;

    #[test]
    fn filters_follow_each_other() {
        let folder = Folder::new();
        folder.write("a.txt", "one one one");
        let site = Site::with(
            folder,
            "server { LISTEN sub_filter one two; sub_filter_once off; sub_filter_types *; addition_types *;
                 add_before_body /b; add_after_body /b; types { }
                 location = /b { sub_filter x y; return 200 [one]; }
                 location = /c { alias html/a.txt; gzip on; gzip_types *; gzip_min_length 1; gzip_http_version 1.0; } }",
        );
        assert_eq!(site.get("/a.txt").text(), "[one]two two two[one]");
        let packed = site.ask("GET", "/c", "Accept-Encoding: gzip\r\n").body;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "[one]two two two[one]");
    }
}
