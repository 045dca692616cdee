//! Bytes as a list of things: whatever the bytes are, they mean something, and a small change of
//! the bytes is a small change of the meaning.

/// Ends a text; no UTF-8 has it.
const END: u8 = 0xff;

/// What is left of the fuzzer's bytes.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    /// One byte, if there is any.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A number below 65536.
    pub fn number(&mut self) -> Option<u64> {
        Some(u64::from(self.byte()?) * 256 + u64::from(self.byte()?))
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        Some(from[usize::from(self.byte()?) % from.len()])
    }

    /// Everything up to the end of a text.
    pub fn text(&mut self) -> &'a [u8] {
        let length = self.0.iter().position(|&byte| byte == END);
        let (text, rest) = self.0.split_at(length.unwrap_or(self.0.len()));
        self.0 = rest.get(1..).unwrap_or_default();
        text
    }
}
