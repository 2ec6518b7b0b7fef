use core::fmt;

/// What a suite found: each sentence of the contract, and whether the backend keeps it.
///
/// Its text is one line for each sentence. In a test end with [`assert`](Self::assert); a program
/// prints it and looks at [`is_kept`](Self::is_kept).
#[must_use = "a broken contract is in here"]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    subject: &'static str,
    checks: Vec<Check>,
}

/// One sentence of a contract.
#[expect(clippy::exhaustive_structs, reason = "a passive value")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// As it stands in the documentation of the trait.
    pub sentence: &'static str,
    /// Whether the backend keeps it.
    pub verdict: Verdict,
}

/// Whether a backend keeps a sentence of its contract.
#[expect(clippy::exhaustive_enums, reason = "whoever reports shows all three")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// As far as the suite can see.
    Kept,
    /// It does not; what was seen, in words.
    Broken(String),
    /// The suite had no means to see it; what it needs, in words.
    NotChecked(&'static str),
}

impl Report {
    pub(super) fn new(subject: &'static str, sentences: &[(&'static str, &'static str)]) -> Self {
        let checks = sentences
            .iter()
            .map(|(sentence, needs)| Check {
                sentence,
                verdict: Verdict::NotChecked(needs),
            })
            .collect();
        Self { subject, checks }
    }

    /// Goes through the sentences in the order of the documentation.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter()
    }

    /// Whether no sentence is broken.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.broken().next().is_none()
    }

    /// Goes through the sentences that the backend breaks.
    pub fn broken(&self) -> impl Iterator<Item = &'static str> {
        self.checks
            .iter()
            .filter(|check| matches!(check.verdict, Verdict::Broken(_)))
            .map(|check| check.sentence)
    }

    /// Ends a test.
    ///
    /// # Panics
    ///
    /// If a sentence is broken; the message is the report.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.is_kept(), "{self}");
    }

    /// Notes what one look at a sentence showed. The first that breaks it stays.
    pub(super) fn note(&mut self, sentence: &'static str, seen: Result<(), String>) {
        let check = self
            .checks
            .iter_mut()
            .find(|check| check.sentence == sentence)
            .expect("the suite lists every sentence that it checks");
        match (&check.verdict, seen) {
            (Verdict::Broken(_), _) | (Verdict::Kept, Ok(())) => {}
            (Verdict::NotChecked(_), Ok(())) => check.verdict = Verdict::Kept,
            (Verdict::Kept | Verdict::NotChecked(_), Err(what)) => {
                check.verdict = Verdict::Broken(what);
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |wanted: fn(&Verdict) -> bool| {
            self.checks
                .iter()
                .filter(|check| wanted(&check.verdict))
                .count()
        };
        writeln!(
            f,
            "{}: {} kept, {} broken, {} not checked",
            self.subject,
            count(|verdict| *verdict == Verdict::Kept),
            count(|verdict| matches!(verdict, Verdict::Broken(_))),
            count(|verdict| matches!(verdict, Verdict::NotChecked(_))),
        )?;
        for Check { sentence, verdict } in &self.checks {
            match verdict {
                Verdict::Kept => writeln!(f, "  kept         {sentence}")?,
                Verdict::Broken(what) => {
                    writeln!(f, "  BROKEN       {sentence}")?;
                    writeln!(f, "               -> {what}")?;
                }
                Verdict::NotChecked(needs) => {
                    writeln!(f, "  not checked  {sentence}")?;
                    writeln!(f, "               -> {needs}")?;
                }
            }
        }
        Ok(())
    }
}
