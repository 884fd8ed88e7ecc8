//! A cursor over received bytes that can only fail, never panic.

use super::Malformed;

/// Reads from the front of a byte slice with every length checked.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Reader<'a> {
        Reader { left: data }
    }

    /// Bytes not yet read.
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// Fewer are left; the error names `what`.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self
            .left
            .split_at_checked(count)
            .ok_or(Malformed::Truncated {
                what,
                needed: count,
                left: self.left.len(),
            })?;
        self.left = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// Fewer are left; the error names `what`.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (head, tail) = self
            .left
            .split_first_chunk::<N>()
            .ok_or(Malformed::Truncated {
                what,
                needed: N,
                left: self.left.len(),
            })?;
        self.left = tail;
        Ok(*head)
    }

    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(what).map(|[b]| b)
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }

    /// A reader over the next `count` bytes, for a structure with a length field of its own.
    ///
    /// # Errors
    /// Fewer are left; the error names `what`.
    pub fn sub(&mut self, count: usize, what: &'static str) -> Result<Reader<'a>, Malformed> {
        self.take(count, what).map(Reader::new)
    }

    /// Says that nothing may be left.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(&self, what: &'static str) -> Result<(), Malformed> {
        match self.left.len() {
            0 => Ok(()),
            count => Err(Malformed::Trailing { what, count }),
        }
    }
}
