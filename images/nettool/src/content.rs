//! Content of long transfers: a byte at an offset is a function of the offset alone, so a reader can verify any part of
//! the stream and name the first wrong byte.

/// Fills `buffer` with the bytes of the stream from `offset` on.
pub(crate) fn fill(offset: u64, buffer: &mut [u8]) {
    for (index, byte) in buffer.iter_mut().enumerate() {
        let at = offset + index as u64;
        *byte = (mix(at / 8) >> (8 * (at % 8))) as u8;
    }
}

/// Offset of the first byte in `received` that is not the stream's, if any.
pub(crate) fn first_difference(offset: u64, received: &[u8], scratch: &mut Vec<u8>) -> Option<u64> {
    scratch.resize(received.len(), 0);
    fill(offset, scratch);
    received.iter().zip(scratch.iter()).position(|(a, b)| a != b).map(|at| offset + at as u64)
}

/// A mixing function of 64 bits (the finalizer of SplitMix64): neighbours differ in about half of their bits.
fn mix(index: u64) -> u64 {
    let mut z = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
