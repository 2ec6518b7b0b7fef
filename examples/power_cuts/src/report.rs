//! What an enumeration came to, as a table.

use core::fmt::{self, Write as _};

use crate::enumeration::{Outcome, Row};

/// Writes the rows, the failures and the totals.
///
/// # Errors
///
/// Never: memory takes it all.
pub fn table(outcome: &Outcome, seed: u64) -> Result<String, fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "{:18} {:10} {:>6} {:>9} {:>9} {:>15} {:>5} {:>6}",
        "scenario", "flash", "ops", "cuts", "doubles", "words", "lost", "bricks"
    )?;
    for row in &outcome.rows {
        line(&mut text, row)?;
    }
    let total = outcome.total();
    line(&mut text, &total)?;
    for failure in &outcome.failures {
        writeln!(text, "\n{failure}")?;
    }
    writeln!(
        text,
        "\n{} cut points and {} doubles: {} bricks; seed {seed}",
        total.cuts, total.doubles, total.bricks
    )?;
    let (tried, all) = total.pieces;
    if tried < all {
        writeln!(
            text,
            "of {all} words and blocks inside operations {tried} were cut, chosen by the seed"
        )?;
    }
    Ok(text)
}

fn line(text: &mut String, row: &Row) -> fmt::Result {
    let (tried, all) = row.pieces;
    writeln!(
        text,
        "{:18} {:10} {:>6} {:>9} {:>9} {:>15} {:>5} {:>6}",
        row.scenario,
        row.preset,
        row.operations,
        row.cuts,
        row.doubles,
        format!("{tried}/{all}"),
        row.lost_blocks,
        row.bricks
    )
}
