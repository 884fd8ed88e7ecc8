//! Bytes as a script: what a target shall do, step by step. A script that has ended yields zeros.

pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn new(data: &'a [u8]) -> Script<'a> {
        Script(data)
    }

    pub(super) fn over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Big-endian.
    pub(super) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// So many bytes, or as many as are left.
    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(self.0.len().min(count));
        self.0 = rest;
        head
    }

    /// A length of two bytes, and as many bytes.
    pub(super) fn part(&mut self) -> &'a [u8] {
        let length = self.word();
        self.take(usize::from(length))
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}
