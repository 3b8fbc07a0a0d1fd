//! Tests of [`super`]: layouts by linux/netlink.h, padding included.
use super::*;

#[test]
fn attributes_are_padded_and_found_again_also_within_others() {
    let inner = Attributes::default().long(1, 7).long(2, 9);
    let all = Attributes::default().text(1, "abc").text(3, "forward").number(5, 1).nested(8, &inner).0;
    assert_eq!(all[..8], [8, 0, 1, 0, b'a', b'b', b'c', 0]);
    assert_eq!(all[8..12], [12, 0, 3, 0], "the length is without the padding");
    assert_eq!(attribute(&all, 3), Some(b"forward\0".as_slice()));
    assert_eq!(attribute(&all, 5), Some([0, 0, 0, 1].as_slice()), "network byte order");
    let counters = attribute(&all, 8).unwrap();
    assert_eq!(attribute(counters, 2), Some([0, 0, 0, 0, 0, 0, 0, 9].as_slice()));
    assert_eq!(attribute(&all, 4), None);
    assert_eq!(attribute(&all[..6], 1), None, "cut off");
}

#[test]
fn refusals_acknowledgements_and_answers_are_told_apart() {
    let framed = |kind: u16, payload: &[u8]| {
        let mut bytes = ((HEADERS.0 + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    };
    let refused = (-libc::ENOENT).to_ne_bytes();
    let bytes =
        [framed(2, &[0; 4]), framed(0x0a03, &[2, 0, 0, 0, 8, 0, 5, 0, 0, 0, 0, 0]), framed(2, &refused)].concat();
    let all = answers(&bytes);
    assert!(all[0].as_ref().unwrap().is_empty());
    assert_eq!(all[1].as_ref().unwrap(), &[8, 0, 5, 0, 0, 0, 0, 0]);
    assert_eq!(all[2].as_ref().unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(all.len(), 3);
    assert!(answers(&bytes[..10]).is_empty());
}
