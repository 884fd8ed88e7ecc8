//! Messages between an edge and its authority, as a connection takes them apart.

/// The start of a stream: whatever its pieces are, the same messages are in it.
pub fn cluster_stream(data: &[u8]) {
    let whole = evergate::fuzzing::cluster_stream(data, data.len());
    for piece in [1, 7] {
        assert_eq!(evergate::fuzzing::cluster_stream(data, piece), whole);
    }
}
