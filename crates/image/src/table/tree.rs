//! The shape of the page tree: which page holds what, computed, never searched.

use super::page::{CHILDREN, ENTRIES};

/// The tree over the leaves of a table. All leaves lie at the same depth; pages lie depth first, a parent before its children.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree {
    leaves: u32,
    /// Levels of index pages above the leaves; 0: the root is the only leaf.
    height: u32,
}

impl Tree {
    pub(crate) fn of(chunks: u32) -> Self {
        let leaves = chunks.div_ceil(ENTRIES);
        let height = (0..).find(|&height| span(height) >= u64::from(leaves));
        Self {
            leaves,
            height: height.expect("128 to the 5th exceeds every u32"),
        }
    }

    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    pub(crate) fn page_count(&self) -> u32 {
        (0..=self.height)
            .map(|level| u64::from(self.leaves).div_ceil(span(level)))
            .sum::<u64>()
            .try_into()
            .expect("a table of 2^32 chunks has fewer than 2^26 pages")
    }

    /// The pages from the root down to `leaf`, each with how many of its places are used and which of them leads on.
    pub(crate) fn path(self, leaf: u32) -> impl Iterator<Item = Step> {
        let leaf = u64::from(leaf);
        let leaves = u64::from(self.leaves);
        let mut page = 0u64;
        (0..=self.height).rev().map(move |level| {
            let number =
                u32::try_from(page).expect("a table of 2^32 chunks has fewer than 2^26 pages");
            let Some(below) = level.checked_sub(1) else {
                return Step {
                    page: number,
                    children: 0,
                    child: 0,
                };
            };
            let first = leaf - leaf % span(level);
            let child = (leaf - first) / span(below);
            page += 1 + child * full(below);
            Step {
                page: number,
                children: (leaves - first).min(span(level)).div_ceil(span(below)),
                child,
            }
        })
    }
}

/// One page on the way from the root to a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Page number.
    pub(crate) page: u32,
    /// Children of an index page that are used; 0 for a leaf.
    pub(crate) children: u64,
    /// Which child leads to the leaf.
    pub(crate) child: u64,
}

/// How many leaves a full node `level` levels above the leaves covers.
const fn span(level: u32) -> u64 {
    CHILDREN.pow(level)
}

/// How many pages a full subtree has whose top lies `level` levels above the leaves.
fn full(level: u32) -> u64 {
    (0..=level).map(span).sum()
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn pages(tree: Tree, leaf: u32) -> Vec<u32> {
        tree.path(leaf).map(|step| step.page).collect()
    }

    #[test]
    fn counts_pages_at_the_edges_of_each_height() {
        let leaf = ENTRIES;
        for (chunks, height, count) in [
            (1, 0, 1),
            (leaf, 0, 1),
            (leaf + 1, 1, 3),
            (128 * leaf, 1, 129),
            (128 * leaf + 1, 2, 132),
            (128 * 128 * leaf, 2, 16_513),
            (128 * 128 * leaf + 1, 3, 16_517),
            (u32::MAX, 4, 42_439_082),
        ] {
            let tree = Tree::of(chunks);
            assert_eq!(
                (tree.height(), tree.page_count()),
                (height, count),
                "{chunks}"
            );
        }
    }

    #[test]
    fn pages_of_successive_leaves_are_numbered_without_a_gap() {
        for leaves in [1, 2, 127, 128, 129, 300, 128 * 128, 128 * 128 + 3] {
            let tree = Tree::of(leaves * ENTRIES);
            let mut next = 0;
            for leaf in 0..leaves {
                for page in pages(tree, leaf) {
                    if page >= next {
                        assert_eq!(page, next, "leaf {leaf} of {leaves}");
                        next += 1;
                    }
                }
            }
            assert_eq!(next, tree.page_count());
        }
    }

    #[test]
    fn a_path_leads_through_the_computed_pages() {
        let tree = Tree::of(129 * ENTRIES);
        assert_eq!(pages(tree, 0), [0, 1, 2]);
        assert_eq!(pages(tree, 127), [0, 1, 129]);
        assert_eq!(pages(tree, 128), [0, 130, 131]);
    }
}
