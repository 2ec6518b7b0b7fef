//! The chunk table: fetched into the slot's tail page by page, and read from there ever after.

use rekindle_image::{Chunk, Cursor, PAGE_SIZE};

use super::plan::next_leaf;
use super::{Converge, ConvergeError, Flow, Need, Op, Stage};

impl Converge {
    /// Writes manifest and header to the target copy. A mark left there names another header.
    pub(super) fn write_head(&mut self) {
        let head = self.slot.copies[self.copy].head.clone();
        if self.geometry.erase_size > 0 {
            self.ops.push_back(Op::Erase(head));
        }
        self.ops.push_back(Op::WriteHead);
        self.ops.push_back(Op::Sync);
    }

    /// Withdraws the mark of a copy, so that nothing calls content complete that changes.
    pub(super) fn clear_mark(&mut self, copy: usize) {
        if copy == self.copy {
            self.marked = false;
        }
        if self.geometry.erase_size > 0 {
            let mark = self.slot.copies[copy].mark.clone();
            self.ops.push_back(Op::Erase(mark));
        } else {
            self.ops.push_back(Op::ClearMark { copy });
        }
        self.ops.push_back(Op::Sync);
    }

    pub(super) fn fetch_table(&mut self) -> Result<(), ConvergeError> {
        if self.geometry.erase_size > 0 {
            let table = self.slot.copies[self.copy].table.clone();
            self.ops.push_back(Op::Erase(table));
        }
        self.fetch(self.image.table.clone())?;
        self.reset_cursor();
        self.page_filled = 0;
        self.stage = Stage::FetchTable { chunk: 0 };
        Ok(())
    }

    pub(super) fn reset_cursor(&mut self) {
        self.cursor = Cursor::new(
            &self.manifest.table,
            self.manifest.size,
            self.manifest.stored_size,
        );
        self.loaded_page = None;
    }

    pub(super) fn receive_table(&mut self, chunk: u32) -> Result<Flow, ConvergeError> {
        if chunk >= self.manifest.table.chunks {
            self.ops.push_back(Op::Sync);
            self.reset_cursor();
            self.stage = Stage::CheckTable {
                chunk: 0,
                fetched: true,
            };
            return Ok(Flow::Go);
        }
        self.cursor.seek(chunk);
        if let Some(page) = self.cursor.wanted() {
            if self.page_filled < self.page.len() {
                self.need = Some(Need::ReceivePage);
                return Ok(Flow::Wait);
            }
            self.cursor
                .supply(&self.page)
                .map_err(|source| ConvergeError::BadTable { page, source })?;
            self.page_filled = 0;
            self.ops.push_back(Op::WritePage(page));
            return Ok(Flow::Wait);
        }
        self.stage = Stage::FetchTable {
            chunk: next_leaf(chunk),
        };
        Ok(Flow::Go)
    }

    pub(super) fn check_table(&mut self, chunk: u32, fetched: bool) -> Result<Flow, ConvergeError> {
        if chunk >= self.manifest.table.chunks {
            self.stage = if self.describe_only {
                Stage::Finish
            } else if fetched {
                Stage::Probe { sample: 0 }
            } else {
                Stage::Scan { chunk: 0 }
            };
            return Ok(Flow::Go);
        }
        self.cursor.seek(chunk);
        let Some(page) = self.cursor.wanted() else {
            self.stage = Stage::CheckTable {
                chunk: next_leaf(chunk),
                fetched,
            };
            return Ok(Flow::Go);
        };
        if self.loaded_page != Some(page) {
            self.need = Some(Need::ReadPage {
                number: page,
                stored: true,
            });
            return Ok(Flow::Wait);
        }
        self.loaded_page = None;
        match self.cursor.supply(&self.page) {
            Ok(()) => {}
            Err(_damage) if fetched => return Err(ConvergeError::TableReadBack { page }),
            Err(_damage) => {
                if self.marked {
                    self.clear_mark(self.copy);
                }
                self.fetch_table()?;
            }
        }
        Ok(Flow::Go)
    }

    pub(super) fn table_page(&self, number: u32) -> u64 {
        self.slot.copies[self.copy].table.start + u64::from(number) * u64::from(PAGE_SIZE)
    }

    /// The table's entry for a chunk, once its pages are in memory; `None`: one was asked for.
    pub(super) fn chunk(&mut self, index: u32) -> Result<Option<Chunk>, ConvergeError> {
        self.cursor.seek(index);
        while let Some(page) = self.cursor.wanted() {
            if self.loaded_page != Some(page) {
                self.need = Some(Need::ReadPage {
                    number: page,
                    stored: false,
                });
                return Ok(None);
            }
            self.loaded_page = None;
            self.cursor
                .supply(&self.page)
                .map_err(|_damage| ConvergeError::TableReadBack { page })?;
        }
        Ok(self.cursor.chunk())
    }
}
