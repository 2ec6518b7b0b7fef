/// What a script may cost. Checked before the work, and the only reason why a script as a whole is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The longest script, in bytes. Default 1 MiB: the longest seen in the field are some tens of KiB. Memory for
    /// the lines comes on top, about 100 bytes each.
    pub script_bytes: u32,
    /// The longest line, in bytes without its line end. Default 64 KiB: certificates come as hexadecimal in one line
    /// of several KiB.
    pub line_bytes: u32,
    /// The most lines, blank ones and comments included. Default 20 000.
    pub lines: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            script_bytes: 1024 * 1024,
            line_bytes: 64 * 1024,
            lines: 20_000,
        }
    }
}
