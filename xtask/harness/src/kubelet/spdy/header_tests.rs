//! Tests of [`super`]. The blocks were made by zlib at its best compression, with the dictionary.
use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const FIRST: &str = "78f9e3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff";
const SECOND: &str = "02a5470c295029930829b08bc079c3c2c0c2004873164122381394f0190d00000000ffff";
const THIRD: &str = "c26e6c710930ab01000000ffff";

#[test]
fn the_dictionary_is_the_one_of_the_draft() {
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in dictionary() {
        low = (low + u32::from(byte)) % 65521;
        high = (high + low) % 65521;
    }
    assert_eq!(dictionary().len(), 1423);
    assert_eq!((high << 16 | low).to_be_bytes(), DICTIONARY);
}

#[test]
fn blocks_are_read_one_after_the_other_with_one_history() {
    let mut decoder = Decoder::new();
    assert_eq!(decoder.decode(&bytes(FIRST)).unwrap(), headers(&[("streamtype", "error")]));
    let second = headers(&[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]);
    assert_eq!(decoder.decode(&bytes(SECOND)).unwrap(), second);
    assert_eq!(decoder.decode(&bytes(THIRD)).unwrap(), headers(&[("streamtype", "stdin")]));
    // Without that history the same bytes mean something else.
    let mut other = Decoder::new();
    other.begun = true;
    assert_ne!(other.decode(&bytes(THIRD)).ok(), Some(headers(&[("streamtype", "stdin")])));
}

#[test]
fn our_own_blocks_can_be_read() {
    let mut decoder = Decoder::new();
    for first in [true, false, false] {
        assert_eq!(decoder.decode(&none(first)).unwrap(), BTreeMap::new());
    }
}

#[test]
fn a_history_longer_than_the_window_wraps() {
    let mut decoder = Decoder::new();
    decoder.decode(&none(true)).unwrap();
    // Stored pieces of 10 KiB: one header with a long value.
    for round in 0..8_u8 {
        let value = vec![b'a' + round; 10 << 10];
        let mut plain = [&1_u32.to_be_bytes()[..], &1_u32.to_be_bytes(), b"N"].concat();
        plain.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        plain.extend_from_slice(&value);
        let length = u16::try_from(plain.len()).unwrap();
        let block = [&[0], &length.to_le_bytes()[..], &(!length).to_le_bytes(), &plain].concat();
        let read = decoder.decode(&block).unwrap();
        assert_eq!(read["n"].as_bytes(), value, "round {round}, and the name in lower case");
    }
}

#[test]
fn what_is_no_block_is_refused() {
    let refused = |hex: &str| Decoder::new().decode(&bytes(hex)).unwrap_err().to_string();
    assert!(refused("78").contains("1 bytes"));
    assert!(refused("7802").contains("not compressed by zlib"));
    assert!(refused("78f9e3c6a7c3").contains("another dictionary"));
    assert!(refused("78f9e3c6a7c2ff").contains("cannot be decompressed"));
    // A count of two headers, and nothing after it.
    assert!(refused("780100040000000000").contains("cannot be decompressed"), "a wrong complement of the length");
    assert!(refused("7801000400fbff00000002").contains("cut off"));
}
