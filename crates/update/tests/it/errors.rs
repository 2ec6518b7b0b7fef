//! What errors say.

use core::convert::Infallible;
use core::error::Error;

use rekindle_flash::{BootRefused, LayoutError};
use rekindle_image::{HeaderError, ManifestError, VerifyError};
use rekindle_update::{InstallError, RepairError, ScrubError, TailError, TrialError};

type Install = InstallError<Infallible, Infallible, Infallible, Infallible>;
type Repair = RepairError<Infallible, Infallible, Infallible, Infallible>;
type Trial = TrialError<Infallible, Infallible>;

/// An error with its causes, as programs print it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[test]
fn an_error_and_its_causes_say_each_thing_once() {
    let boot = || BootRefused::UnknownComponent {
        component: "boot".to_owned(),
    };
    let small = || LayoutError::TooSmall {
        size: 1,
        needed: 4096,
    };
    let unsigned = VerifyError::Unsigned;
    let errors: [(&str, Box<dyn Error>); 13] = [
        (
            "the first 8 bytes",
            Box::new(Install::from(HeaderError::NotAnImage)),
        ),
        ("envelope", Box::new(Install::from(ManifestError::Envelope))),
        ("is not signed", Box::new(Install::from(unsigned))),
        ("knows no component", Box::new(Install::from(boot()))),
        ("too small", Box::new(Install::from(small()))),
        ("knows no component", Box::new(Repair::from(boot()))),
        ("too small", Box::new(Repair::from(small()))),
        (
            "is not signed",
            Box::new(Repair::NotAuthentic(TailError::from(unsigned))),
        ),
        (
            "is not signed",
            Box::new(Repair::Install(Box::new(Install::from(unsigned)))),
        ),
        ("is not signed", Box::new(TailError::from(unsigned))),
        (
            "envelope",
            Box::new(TailError::from(ManifestError::Envelope)),
        ),
        (
            "too small",
            Box::new(ScrubError::<Infallible>::from(small())),
        ),
        ("knows no component", Box::new(Trial::from(boot()))),
    ];
    for (once, error) in errors {
        let text = chain(&*error);
        assert_eq!(text.matches(once).count(), 1, "{text}");
    }
}
