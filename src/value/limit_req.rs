//! The leaky buckets of `limit_req_zone`: how far each key is ahead of its rate.

use std::collections::HashMap;

/// What an entry of nginx's zone takes besides its key.
const OVERHEAD: usize = 80;
/// No entry.
const NONE: u32 = u32::MAX;
/// Milliseconds after which an entry that is not ahead may go.
const OLD: i64 = 60_000;

/// The buckets of one zone, least recently used first to go.
#[derive(Debug)]
pub struct Buckets {
    /// Thousandths of a request a second.
    rate: i64,
    /// Bytes that nginx's zone has for entries, and how much of it would be in use.
    size: usize,
    used: usize,
    keys: HashMap<Box<[u8]>, u32>,
    list: Vec<Bucket>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
}

#[derive(Debug)]
struct Bucket {
    key: Box<[u8]>,
    /// Thousandths of a request above the rate.
    excess: i64,
    /// Milliseconds of the clock at the last request that counted.
    last: i64,
    /// Requests that look at further zones before they count here.
    pending: u32,
    newer: u32,
    older: u32,
}

/// What a bucket says of a request. Excess is in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It counts.
    Passed(i64),
    /// It is within the limit, and is to be counted by [`Buckets::account`] once all zones have agreed.
    Pending,
    /// It exceeds the burst.
    Busy(i64),
    /// There is no room for the key.
    Full,
}

fn cost(key: &[u8]) -> usize {
    (OVERHEAD + key.len()).next_power_of_two()
}

impl Buckets {
    /// Buckets that lose `rate` thousandths a second, in a zone of `size` bytes.
    pub fn new(rate: i64, size: usize) -> Buckets {
        Buckets {
            rate: rate.max(1),
            // Some of a zone is for its own tables.
            size: size - size / 64,
            used: 0,
            keys: HashMap::new(),
            list: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Thousandths of a request a second.
    pub fn rate(&self) -> i64 {
        self.rate
    }

    /// Asks for one request of `key` at `now` (milliseconds); `account` counts it at once.
    pub fn ask(&mut self, key: &[u8], now: i64, burst: i64, account: bool) -> Answer {
        let Some(&at) = self.keys.get(key) else { return self.first(key, now, account) };
        self.unlink(at);
        self.link(at);
        let rate = self.rate;
        let bucket = &mut self.list[at as usize];
        let ms = elapsed(now, bucket.last);
        let excess = left(bucket.excess, rate, ms);
        if excess > burst {
            return Answer::Busy(excess);
        }
        if account {
            bucket.excess = excess;
            if ms > 0 {
                bucket.last = now;
            }
            return Answer::Passed(excess);
        }
        bucket.pending += 1;
        Answer::Pending
    }

    fn first(&mut self, key: &[u8], now: i64, account: bool) -> Answer {
        self.expire(now, false);
        if self.used + cost(key) > self.size {
            self.expire(now, true);
            if self.used + cost(key) > self.size {
                return Answer::Full;
            }
        }
        let (last, pending) = if account { (now, 0) } else { (0, 1) };
        let bucket = Bucket { key: key.into(), excess: 0, last, pending, newer: NONE, older: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.list[at as usize] = bucket;
                at
            }
            None => {
                self.list.push(bucket);
                (self.list.len() - 1) as u32
            }
        };
        self.used += cost(key);
        self.keys.insert(key.into(), at);
        self.link(at);
        if account { Answer::Passed(0) } else { Answer::Pending }
    }

    /// Counts a request that was [`Answer::Pending`]; its excess.
    pub fn account(&mut self, key: &[u8], now: i64) -> i64 {
        let Some(&at) = self.keys.get(key) else { return 0 };
        let rate = self.rate;
        let bucket = &mut self.list[at as usize];
        let ms = elapsed(now, bucket.last);
        bucket.excess = left(bucket.excess, rate, ms);
        if ms > 0 {
            bucket.last = now;
        }
        bucket.pending = bucket.pending.saturating_sub(1);
        bucket.excess
    }

    /// Forgets a request that was [`Answer::Pending`].
    pub fn forget(&mut self, key: &[u8]) {
        if let Some(&at) = self.keys.get(key) {
            let bucket = &mut self.list[at as usize];
            bucket.pending = bucket.pending.saturating_sub(1);
        }
    }

    /// Removes up to two entries that are old and not ahead; by force also the oldest, whatever it is.
    fn expire(&mut self, now: i64, force: bool) {
        for turn in usize::from(!force)..3 {
            let at = self.oldest;
            let Some(bucket) = self.list.get(at as usize) else { return };
            if bucket.pending > 0 {
                return;
            }
            if turn > 0 {
                let ms = (now - bucket.last).abs();
                if ms < OLD || bucket.excess - self.rate * ms / 1000 > 0 {
                    return;
                }
            }
            self.remove(at);
        }
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        let key = std::mem::take(&mut self.list[at as usize].key);
        self.used -= cost(&key);
        self.keys.remove(&key);
        self.free.push(at);
    }

    fn link(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        let bucket = &mut self.list[at as usize];
        (bucket.newer, bucket.older) = (NONE, before);
        match self.list.get_mut(before as usize) {
            Some(older) => older.newer = at,
            None => self.oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = (self.list[at as usize].newer, self.list[at as usize].older);
        match self.list.get_mut(newer as usize) {
            Some(bucket) => bucket.older = older,
            None => self.newest = older,
        }
        match self.list.get_mut(older as usize) {
            Some(bucket) => bucket.newer = newer,
            None => self.oldest = newer,
        }
    }
}

/// Milliseconds since `last`; the clock of another thread may be a little behind.
fn elapsed(now: i64, last: i64) -> i64 {
    match now - last {
        ..-60_000 => 1,
        ms => ms.max(0),
    }
}

/// What is left of an excess after `ms`, with one request more.
fn left(excess: i64, rate: i64, ms: i64) -> i64 {
    (excess - rate.saturating_mul(ms) / 1000 + 1000).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_leaks_at_its_rate() {
        let mut b = Buckets::new(1000, 1 << 20);
        assert_eq!(b.ask(b"k", 5000, 1000, true), Answer::Passed(0));
        assert_eq!(b.ask(b"k", 5000, 1000, true), Answer::Passed(1000));
        assert_eq!(b.ask(b"k", 5100, 1000, true), Answer::Busy(1900));
        assert_eq!(b.ask(b"k", 6000, 1000, true), Answer::Passed(1000));
        assert_eq!(b.ask(b"other", 6000, 0, true), Answer::Passed(0));
        assert_eq!(b.ask(b"k", 60_000, 1000, true), Answer::Passed(0));
    }

    #[test]
    fn a_pending_request_counts_when_it_is_accounted() {
        let mut b = Buckets::new(1000, 1 << 20);
        assert_eq!(b.ask(b"k", 70_000, 0, false), Answer::Pending);
        assert_eq!(b.account(b"k", 70_000), 0);
        assert_eq!(b.ask(b"k", 70_000, 0, true), Answer::Busy(1000));
        assert_eq!(b.ask(b"k", 70_000, 1000, false), Answer::Pending);
        b.forget(b"k");
        assert_eq!(b.ask(b"k", 71_000, 0, true), Answer::Passed(0));
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut b = Buckets::new(1000, 3 * 128 + 8);
        for (i, key) in ["a", "b", "c"].iter().enumerate() {
            assert_eq!(b.ask(key.as_bytes(), i as i64, 0, true), Answer::Passed(0));
        }
        assert_eq!(b.ask(b"a", 1000, 0, true), Answer::Passed(0));
        assert_eq!(b.ask(b"d", 1001, 0, true), Answer::Passed(0));
        assert!(!b.keys.contains_key(&b"b"[..]) && b.keys.contains_key(&b"a"[..]));
        assert_eq!(b.ask(b"c", 1002, 5000, false), Answer::Pending);
        b.remove(b.keys[&b"a"[..]]);
        assert_eq!(b.ask(b"e", 90_000, 0, true), Answer::Passed(0));
        assert_eq!(b.keys.len(), 2);
    }

    proptest! {
        #[test]
        fn list_and_map_stay_together(asks in proptest::collection::vec((0u8..9, 0i64..100_000), 1..200)) {
            let mut b = Buckets::new(500, 4 * 128 + 8);
            let mut now = 0;
            for (key, step) in asks {
                now += step;
                b.ask(&[key], now, 2000, true);
                let (mut at, mut count) = (b.newest, 0);
                while at != NONE {
                    count += 1;
                    at = b.list[at as usize].older;
                }
                prop_assert_eq!(count, b.keys.len());
                prop_assert!(count <= 4);
            }
        }
    }
}
