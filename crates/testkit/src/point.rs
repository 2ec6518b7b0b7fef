use core::fmt;
use core::str::FromStr;

use crate::cells::Torn;
use crate::random::Random;

/// A point at which the power is cut, in a [`Recording`](crate::Recording).
///
/// It is printed and read in a short form: `12` is before operation 12, with everything before it
/// on the medium; `12@40:garbage+first3` is inside its piece 40, which holds garbage, and of what
/// was not synced the first three operations arrived.
#[expect(clippy::exhaustive_structs, reason = "tests construct it")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Point {
    /// The operation that comes next, or is torn; from 0.
    pub step: usize,
    /// Where inside of it; `None`: before it.
    pub inside: Option<Inside>,
    /// What becomes of the operations that are not synced.
    pub unsynced: Unsynced,
}

/// Where inside an operation the power is cut.
#[expect(clippy::exhaustive_enums, reason = "an enumeration goes through all")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Inside {
    /// In this word of a write or block of an erase; those before it are done, those behind it not.
    Piece {
        /// Which one, from 0.
        at: usize,
        /// What it holds.
        torn: Torn,
    },
    /// Each word or block is on its own: done, not begun or torn, by this number and the seed.
    Scattered(u32),
    /// In a sync, which is bringing what was not synced to the medium.
    Sync,
}

/// What becomes of operations that are not synced when the power is cut.
#[expect(clippy::exhaustive_enums, reason = "an enumeration goes through all")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Unsynced {
    /// The first so many have arrived.
    First(usize),
    /// All have arrived but this one, from 0.
    AllBut(usize),
    /// Each has arrived, has not, or is torn, by this number and the seed.
    Some(u32),
}

impl Point {
    /// Sets the sequences of different points apart.
    pub(crate) fn salt(&self) -> u64 {
        let [inside, torn] = match self.inside {
            None => [0, 0],
            Some(Inside::Piece { at, torn }) => [1 + number(at), torn_number(torn)],
            Some(Inside::Scattered(n)) => [u64::from(n), 5],
            Some(Inside::Sync) => [0, 6],
        };
        let unsynced = match self.unsynced {
            Unsynced::First(n) => number(n) << 2,
            Unsynced::AllBut(n) => number(n) << 2 | 1,
            Unsynced::Some(n) => u64::from(n) << 2 | 2,
        };
        [number(self.step), inside, torn, unsynced]
            .into_iter()
            .fold(0, |salt, part| Random::new(salt ^ part).next())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.step)?;
        match self.inside {
            None => {}
            Some(Inside::Piece { at, torn }) => write!(f, "@{at}:{}", torn_name(torn))?,
            Some(Inside::Scattered(n)) => write!(f, "@scattered{n}")?,
            Some(Inside::Sync) => write!(f, "@sync")?,
        }
        match self.unsynced {
            Unsynced::First(n) => write!(f, "+first{n}"),
            Unsynced::AllBut(n) => write!(f, "+allbut{n}"),
            Unsynced::Some(n) => write!(f, "+some{n}"),
        }
    }
}

impl FromStr for Point {
    type Err = ParsePointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (place, fate) = text.split_once('+').ok_or(ParsePointError)?;
        let unsynced = if let Some(n) = fate.strip_prefix("first") {
            Unsynced::First(parse(n)?)
        } else if let Some(n) = fate.strip_prefix("allbut") {
            Unsynced::AllBut(parse(n)?)
        } else {
            Unsynced::Some(parse(fate.strip_prefix("some").ok_or(ParsePointError)?)?)
        };
        let (step, inside) = match place.split_once('@') {
            None => (place, None),
            Some((step, "sync")) => (step, Some(Inside::Sync)),
            Some((step, inside)) => {
                let inside = match inside.strip_prefix("scattered") {
                    Some(n) => Inside::Scattered(parse(n)?),
                    None => {
                        let (at, torn) = inside.split_once(':').ok_or(ParsePointError)?;
                        Inside::Piece {
                            at: parse(at)?,
                            torn: *TORN
                                .iter()
                                .find(|kind| torn_name(**kind) == torn)
                                .ok_or(ParsePointError)?,
                        }
                    }
                };
                (step, Some(inside))
            }
        };
        Ok(Self {
            step: parse(step)?,
            inside,
            unsynced,
        })
    }
}

fn parse<T: FromStr>(text: &str) -> Result<T, ParsePointError> {
    text.parse().map_err(|_malformed| ParsePointError)
}

/// The text is no point of a recording.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no power cut: expected something like 12+first3, 12@40:garbage+some7 or 12@sync+some1")]
pub struct ParsePointError;

/// How far an enumeration goes.
#[expect(clippy::exhaustive_structs, reason = "tests construct it")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Of an operation with more pieces than this, so many are chosen by the seed; the first and
    /// the last one are among them.
    pub pieces: usize,
    /// Up to so many pieces, each is torn in all four ways; beyond, they take turns with two of
    /// them.
    pub torn_in_every_way: usize,
    /// Seeded subsets of what is not synced, and seeded tears of a whole operation, at each moment.
    pub subsets: u32,
    /// What garbage, samples and subsets come from.
    pub seed: u64,
}

impl Plan {
    /// Every piece of every operation.
    #[must_use]
    pub const fn full(seed: u64) -> Self {
        Self {
            pieces: usize::MAX,
            torn_in_every_way: 64,
            subsets: 4,
            seed,
        }
    }

    /// A few pieces of every operation.
    #[must_use]
    pub const fn quick(seed: u64) -> Self {
        Self {
            pieces: 3,
            torn_in_every_way: 0,
            subsets: 1,
            seed,
        }
    }

    pub(crate) fn chosen(&self, step: usize, pieces: usize) -> Vec<usize> {
        if pieces <= self.pieces {
            return (0..pieces).collect();
        }
        let mut random = Random::new(self.seed ^ number(step));
        let mut chosen = vec![0, pieces - 1];
        while chosen.len() < self.pieces {
            let piece = random.index_below(pieces);
            if !chosen.contains(&piece) {
                chosen.push(piece);
            }
        }
        chosen.truncate(self.pieces);
        chosen.sort_unstable();
        chosen
    }

    /// In which ways a piece is torn, each with a number that differs.
    pub(crate) fn torn(&self, piece: usize, pieces: usize) -> impl Iterator<Item = (usize, Torn)> {
        let all = pieces <= self.torn_in_every_way;
        TORN.into_iter()
            .enumerate()
            .filter(move |(turn, _)| all || piece / 3 % 2 == turn % 2)
    }
}

fn torn_name(torn: Torn) -> &'static str {
    match torn {
        Torn::Old => "old",
        Torn::New => "new",
        Torn::Half => "half",
        Torn::Garbage => "garbage",
    }
}

fn torn_number(torn: Torn) -> u64 {
    match torn {
        Torn::Old => 1,
        Torn::New => 2,
        Torn::Half => 3,
        Torn::Garbage => 4,
    }
}

fn number(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

const TORN: [Torn; 4] = [Torn::Old, Torn::New, Torn::Half, Torn::Garbage];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn point_is_read_as_it_is_printed() {
        for text in [
            "0+first0",
            "12+allbut3",
            "7+some4",
            "12@40:garbage+first3",
            "12@0:old+some9",
            "3@1:half+first0",
            "3@2:new+first0",
            "5@scattered2+first1",
            "9@sync+some7",
        ] {
            let point: Point = text.parse().expect("it is one");
            assert_eq!(point.to_string(), text);
        }
        for text in [
            "",
            "1",
            "x+first0",
            "1+last0",
            "1@2+first0",
            "1@2:odd+first0",
        ] {
            assert_eq!(text.parse::<Point>(), Err(ParsePointError), "{text:?}");
        }
    }

    #[test]
    fn sample_has_both_ends_and_is_the_same_for_the_same_seed() {
        let plan = Plan {
            pieces: 5,
            ..Plan::full(3)
        };
        let chosen = plan.chosen(7, 100);
        assert_eq!((chosen.len(), chosen[0], chosen[4]), (5, 0, 99));
        assert_eq!(chosen, plan.chosen(7, 100));
        assert_eq!(plan.chosen(7, 3), [0, 1, 2]);
        assert_eq!(Plan::full(0).chosen(0, 1000).len(), 1000);
    }
}
