//! Update variables, slot records and rejections that survive power cuts.
