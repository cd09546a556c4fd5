//! `split_clients`: shares of a hash. Used by http and stream.

use super::entries::{plain_entries, variable_name};
use super::map::VariablesOf;
use super::{Context, Get, Template};
use crate::conf::{Build, Fault, Outcome, units};
use crate::syntax::Directive;

/// Hundredths of a percent in the whole.
const WHOLE: u64 = 10_000;

/// The shares in order: the hash a share ends before (none: all that is left), and its value.
#[derive(Debug, Default)]
struct Shares(Vec<(Option<u32>, Box<[u8]>)>);

/// Share in hundredths of a percent, none for `*`, and value.
type Entry = (Option<u64>, Box<[u8]>);

fn entry(d: &Directive<'_>) -> Outcome<Entry> {
    let word = d.name();
    let share = if word == b"*" {
        None
    } else {
        let number = word.strip_suffix(b"%").and_then(|number| units::fixed_point(number, 2));
        let invalid = || format!("invalid percent value \"{}\"", String::from_utf8_lossy(word));
        Some(number.filter(|n| *n > 0).ok_or_else(invalid)?)
    };
    Ok((share, d.arg(1).into()))
}

impl Shares {
    fn new(entries: Vec<Entry>) -> Result<Shares, &'static str> {
        let (mut sum, mut last) = (0u64, 0u32);
        let mut shares = Vec::with_capacity(entries.len());
        for (share, value) in entries {
            sum = share.map_or(WHOLE, |share| sum.saturating_add(share));
            if sum > WHOLE {
                return Err("percent total is greater than 100%");
            }
            let end = share.filter(|_| sum < WHOLE).map(|share| {
                last = last.wrapping_add((share * u64::from(u32::MAX) / WHOLE) as u32);
                last
            });
            shares.push((end, value));
        }
        Ok(Shares(shares))
    }

    fn get(&self, key: &[u8]) -> &[u8] {
        let hash = murmur_hash2(key);
        let share = self.0.iter().find(|(end, _)| end.is_none_or(|end| hash < end));
        share.map_or(b"", |(_, value)| value)
    }
}

/// MurmurHash2 (32 bits), seeded with the length.
pub fn murmur_hash2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = [0; 4];
        word.copy_from_slice(chunk);
        let mut k = u32::from_le_bytes(word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let mut word = [0; 4];
        word[..rest.len()].copy_from_slice(rest);
        h = (h ^ u32::from_le_bytes(word)).wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// `split_clients KEY $variable { ... }`
pub fn split_clients_block<C: Context>(cf: &mut Build, d: &Directive<'_>, vars: VariablesOf<C>) -> Outcome {
    let source = Template::parse(d.arg(1), vars(cf))?;
    let name = variable_name(d.arg(2))?;
    vars(cf).define(name, Get::Slot, false)?;
    let mut read = Vec::new();
    if let Some(items) = d.block() {
        plain_entries(items, &mut |d| {
            read.push(entry(d)?);
            Ok(())
        })?;
    }
    let shares = Shares::new(read).map_err(|words| Fault::Whole(format!("{words}{}", d.end())))?;
    let get = Get::Computed(Box::new(move |ctx: &C, out: &mut Vec<u8>| {
        out.extend_from_slice(shares.get(&source.eval(ctx)));
        true
    }));
    vars(cf).define(name, get, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::read;
    use super::*;

    fn shares(text: &str) -> Result<Shares, String> {
        let mut list = Vec::new();
        read(text, &mut |d| {
            list.push(entry(d)?);
            Ok(())
        })?;
        Shares::new(list).map_err(str::to_owned)
    }

    #[test]
    fn hashes_as_nginx_does() {
        // Values of the reference implementation with the length as seed.
        assert_eq!(murmur_hash2(b""), 0);
        assert_eq!(murmur_hash2(b"a"), 0x9268_5f5e);
        assert_eq!(murmur_hash2(b"hello world"), 0x44a8_1419);
    }

    #[test]
    fn shares_end_where_percents_add_up() {
        let s = shares("0.5% .one; 25.25% .two; * '';").unwrap();
        let ends: Vec<_> = s.0.iter().map(|(end, _)| *end).collect();
        assert_eq!(ends, [Some(21_474_836), Some(21_474_836 + 1_084_479_241), None]);
        assert_eq!(shares("50% a; 50% b;").unwrap().0[1].0, None);
        let counts = (0..1000u32).fold([0; 3], |mut counts, i| {
            let value = s.get(i.to_string().as_bytes());
            counts[[&b".one"[..], b".two", b""].iter().position(|v| *v == value).unwrap()] += 1;
            counts
        });
        assert!((200..300).contains(&counts[1]) && counts[2] > 650, "{counts:?}");
    }

    #[test]
    fn nginx_words_for_faults() {
        assert_eq!(shares("60% a; 50% b;").unwrap_err(), "percent total is greater than 100%");
        assert_eq!(shares("* a; 50% b;").unwrap_err(), "percent total is greater than 100%");
        for word in ["0%", "50", "x%", "1.234%", "%"] {
            let said = format!("invalid percent value \"{word}\" in test:1");
            assert_eq!(shares(&format!("{word} a;")).unwrap_err(), said);
        }
    }
}
