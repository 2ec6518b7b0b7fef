/// The quirks of the field that are accepted, one flag each. The default is the plain grammar: none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Dialect {
    /// `mod cmd UP1 time` is `mod cmd UP1 times`: the IP6000 manual prints the command that way throughout, so scripts
    /// written by it exist. Off, the line is a module command like any unknown one.
    pub time_as_times: bool,
}

impl Dialect {
    /// Every quirk that scripts of the field need: what a device parses with.
    #[must_use]
    pub const fn field() -> Self {
        Self {
            time_as_times: true,
        }
    }
}
