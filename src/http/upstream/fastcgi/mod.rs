//! FastCGI 1.0, the side that asks: requests as records, and responses out of them. One request a connection at a
//! time, always under the id 1.

pub mod records;
pub mod response;

pub use records::{BadRecord, Part, Records};
pub use response::Response;

/// Types of records (section 8 of the specification).
pub mod kind {
    #[allow(missing_docs)]
    pub const BEGIN_REQUEST: u8 = 1;
    #[allow(missing_docs)]
    pub const END_REQUEST: u8 = 3;
    #[allow(missing_docs)]
    pub const PARAMS: u8 = 4;
    #[allow(missing_docs)]
    pub const STDIN: u8 = 5;
    #[allow(missing_docs)]
    pub const STDOUT: u8 = 6;
    #[allow(missing_docs)]
    pub const STDERR: u8 = 7;
}

/// Bytes of a record's header.
pub const HEADER: usize = 8;
/// Bytes of body in one record at most.
const PIECE: usize = 32 << 10;
/// Bytes of parameters at most: they are sent in one record.
pub const MAX_PARAMS: usize = 65_535;

const VERSION: u8 = 1;
const RESPONDER: u8 = 1;
const KEEP_CONN: u8 = 1;

/// The record that ends the body.
pub const END_OF_STDIN: [u8; HEADER] = header(kind::STDIN, 0, 0);

/// The header of a record: its type, and the lengths of what follows.
pub const fn header(kind: u8, length: u16, padding: u8) -> [u8; HEADER] {
    let [high, low] = length.to_be_bytes();
    [VERSION, kind, 0, 1, high, low, padding, 0]
}

/// Bytes that fill a record up to a multiple of eight.
fn padding(length: usize) -> u8 {
    ((8 - length % 8) % 8) as u8
}

/// Appends the record that begins a request, and then the header of its parameters' record, whose lengths
/// [`end_params`] fills in. Returns where the parameters begin.
pub fn begin(keep_conn: bool, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&header(kind::BEGIN_REQUEST, 8, 0));
    out.extend_from_slice(&[0, RESPONDER, if keep_conn { KEEP_CONN } else { 0 }, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&header(kind::PARAMS, 0, 0));
    out.len()
}

/// Completes the record of the parameters, which began at `start`, and appends the empty one that ends them.
///
/// # Errors
/// How many bytes they are, where those are too many for a record.
pub fn end_params(start: usize, out: &mut Vec<u8>) -> Result<(), usize> {
    let length = out.len() - start;
    let short = u16::try_from(length).map_err(|_| length)?;
    let padding = padding(length);
    out[start - HEADER..start].copy_from_slice(&header(kind::PARAMS, short, padding));
    out.resize(out.len() + usize::from(padding), 0);
    out.extend_from_slice(&header(kind::PARAMS, 0, 0));
    Ok(())
}

/// Appends a parameter: lengths, name, value (section 3.4).
pub fn pair(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for length in [name.len(), value.len()] {
        match u8::try_from(length) {
            Ok(short @ 0..128) => out.push(short),
            _ => out.extend_from_slice(&(length as u32 & 0x7fff_ffff | 0x8000_0000).to_be_bytes()),
        }
    }
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// Appends a piece of body as records.
pub fn stdin(piece: &[u8], out: &mut Vec<u8>) {
    for part in piece.chunks(PIECE) {
        let padding = padding(part.len());
        out.extend_from_slice(&header(kind::STDIN, part.len() as u16, padding));
        out.extend_from_slice(part);
        out.resize(out.len() + usize::from(padding), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes a length of the name-value encoding off.
    fn length(bytes: &mut &[u8]) -> usize {
        let (first, rest) = bytes.split_first().unwrap();
        if *first < 128 {
            *bytes = rest;
            return usize::from(*first);
        }
        let (four, rest) = bytes.split_at(4);
        *bytes = rest;
        (u32::from_be_bytes(four.try_into().unwrap()) & 0x7fff_ffff) as usize
    }

    fn pairs(mut bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (name, value) = (length(&mut bytes), length(&mut bytes));
            out.push((bytes[..name].to_vec(), bytes[name..name + value].to_vec()));
            bytes = &bytes[name + value..];
        }
        out
    }

    /// Types and contents of records.
    fn records(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            assert_eq!((bytes[0], bytes[2], bytes[3], bytes[7]), (1, 0, 1, 0));
            let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            assert_eq!((length + usize::from(bytes[6])) % 8, 0);
            out.push((bytes[1], bytes[HEADER..HEADER + length].to_vec()));
            bytes = &bytes[HEADER + length + usize::from(bytes[6])..];
        }
        out
    }

    #[test]
    fn too_many_parameters_are_told() {
        let mut out = Vec::new();
        let start = begin(true, &mut out);
        pair(b"A", &vec![b'x'; MAX_PARAMS - 6], &mut out);
        assert_eq!(end_params(start, &mut out), Ok(()));
        let mut out = Vec::new();
        let start = begin(true, &mut out);
        pair(b"A", &vec![b'x'; MAX_PARAMS - 5], &mut out);
        assert_eq!(end_params(start, &mut out), Err(MAX_PARAMS + 1));
    }

    proptest! {
        #[test]
        fn a_request_reads_back(
            list in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..200),
                proptest::collection::vec(any::<u8>(), 0..400)), 0..8),
            body in proptest::collection::vec(any::<u8>(), 0..100_000),
            keep in any::<bool>(),
        ) {
            let mut out = Vec::new();
            let start = begin(keep, &mut out);
            list.iter().for_each(|(name, value)| pair(name, value, &mut out));
            end_params(start, &mut out).unwrap();
            stdin(&body, &mut out);
            out.extend_from_slice(&END_OF_STDIN);
            let read = records(&out);
            prop_assert_eq!(&read[0], &(kind::BEGIN_REQUEST, vec![0, 1, u8::from(keep), 0, 0, 0, 0, 0]));
            prop_assert_eq!(&read[1].0, &kind::PARAMS);
            prop_assert_eq!(pairs(&read[1].1), list);
            prop_assert_eq!(&read[2], &(kind::PARAMS, Vec::new()));
            prop_assert!(read[3..].iter().all(|(kind, piece)| *kind == kind::STDIN && piece.len() <= PIECE));
            let sent: Vec<u8> = read[3..].iter().flat_map(|(_, piece)| piece.clone()).collect();
            prop_assert_eq!(sent, body);
            prop_assert!(read.last().unwrap().1.is_empty());
        }
    }
}
