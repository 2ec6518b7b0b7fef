use std::fs;
use std::path::Path;

use rekindle_state::{Dated, DecodeError, FileStore, FileStoreError, Generation, State, Store};
use tempfile::TempDir;

use crate::full;

fn checked(serial: &str) -> State {
    let mut state = full();
    state.check = Some(Dated {
        value: serial.as_bytes().to_vec(),
        date: None,
    });
    state
}

fn load(folder: &Path) -> State {
    let mut store = FileStore::open(folder).expect("the folder is free");
    let loaded = store.load().expect("the state is whole");
    assert_eq!(loaded.damage, None);
    loaded.state
}

fn commit(folder: &Path, state: &State) {
    let mut store = FileStore::open(folder).expect("the folder is free");
    store.commit(state).expect("the folder can be written");
}

/// The sequence each generation has, `None` where there is none.
fn sequences(folder: &Path) -> [Option<u64>; 2] {
    ["state.0", "state.1"].map(|name| {
        let bytes = fs::read(folder.join(name)).ok()?;
        let generation = Generation::decode(&bytes).expect("each generation is whole");
        Some(generation.sequence)
    })
}

#[test]
fn a_new_folder_holds_the_default_state_and_stays_empty_until_a_commit() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b");
    assert_eq!(load(&path), State::default());
    assert_eq!(sequences(&path), [None, None]);
    commit(&path, &State::default());
    assert_eq!(sequences(&path), [Some(1), None]);
}

#[test]
fn commits_alternate_between_two_generations_and_the_newest_counts() {
    let folder = TempDir::new().unwrap();
    let mut store = FileStore::open(folder.path()).unwrap();
    for (serial, expected) in [
        ("1", [Some(1), None]),
        ("2", [Some(1), Some(2)]),
        ("3", [Some(3), Some(2)]),
        ("4", [Some(3), Some(4)]),
    ] {
        store.commit(&checked(serial)).unwrap();
        assert_eq!(sequences(folder.path()), expected);
        assert_eq!(store.load().unwrap().state, checked(serial));
    }
    drop(store);
    assert_eq!(load(folder.path()), checked("4"));
}

#[test]
fn a_commit_that_changes_nothing_writes_nothing() {
    let folder = TempDir::new().unwrap();
    commit(folder.path(), &checked("1"));
    commit(folder.path(), &checked("1"));
    assert_eq!(sequences(folder.path()), [Some(1), None]);
}

#[test]
fn wherever_the_newest_generation_is_cut_off_the_one_before_is_used() {
    let folder = TempDir::new().unwrap();
    commit(folder.path(), &checked("old"));
    commit(folder.path(), &checked("new"));
    let newest = folder.path().join("state.1");
    let whole = fs::read(&newest).unwrap();
    for len in 0..whole.len() {
        fs::write(&newest, &whole[..len]).unwrap();
        let mut store = FileStore::open(folder.path()).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.state, checked("old"), "cut at {len}");
        let damage = loaded.damage.unwrap();
        assert_eq!(damage.generation, newest.display().to_string());
        store.commit(&checked("next")).unwrap();
        assert_eq!(store.load().unwrap().damage, None);
        assert_eq!(sequences(folder.path()), [Some(1), Some(2)]);
    }
}

#[test]
fn whatever_garbage_is_in_one_generation_the_other_is_used_and_the_damage_is_told() {
    let folder = TempDir::new().unwrap();
    commit(folder.path(), &checked("old"));
    commit(folder.path(), &checked("new"));
    let whole = fs::read(folder.path().join("state.1")).unwrap();
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    let mut newer = whole;
    newer[8] = 2;
    let cases = [
        (vec![], DecodeError::Empty),
        (vec![0; 4096], DecodeError::NotState),
        (vec![0xff; 200_000], DecodeError::TooLarge { len: 65_537 }),
        (flipped, DecodeError::Checksum),
        (newer, DecodeError::Version { version: 2 }),
    ];
    for (garbage, error) in cases {
        for (name, other) in [("state.0", "new"), ("state.1", "old")] {
            let path = folder.path().join(name);
            let good = fs::read(&path).unwrap();
            fs::write(&path, &garbage).unwrap();
            let loaded = FileStore::open(folder.path()).unwrap().load().unwrap();
            assert_eq!(loaded.state, checked(other));
            let damage = loaded.damage.unwrap();
            assert_eq!(damage.error, error);
            assert_eq!(
                damage.to_string(),
                format!(
                    "{} is damaged ({error}); the other good copy of the state is used, \
                     a change made just before may be lost",
                    path.display()
                )
            );
            fs::write(&path, good).unwrap();
        }
    }
}

#[test]
fn two_damaged_generations_are_an_error_and_never_an_empty_state() {
    let folder = TempDir::new().unwrap();
    commit(folder.path(), &checked("old"));
    let first = folder.path().join("state.0");
    fs::write(&first, b"garbage").unwrap();
    let mut store = FileStore::open(folder.path()).unwrap();
    let message = format!(
        "no copy of the state in {} can be read: {} is damaged (it ends after 7 of 28 bytes); \
         put back a saved copy of that folder, or give the state up with `rekindled factory-reset`",
        folder.path().display(),
        first.display()
    );
    assert_eq!(store.load().unwrap_err().to_string(), message);
    assert_eq!(
        store.commit(&checked("new")).unwrap_err().to_string(),
        message
    );
    assert_eq!(fs::read(&first).unwrap(), b"garbage");

    store.start_over(&State::default()).unwrap();
    assert_eq!(store.load().unwrap().state, State::default());
}

#[test]
fn starting_over_beats_what_was_there() {
    let folder = TempDir::new().unwrap();
    for serial in ["1", "2", "3", "4"] {
        commit(folder.path(), &checked(serial));
    }
    let mut store = FileStore::open(folder.path()).unwrap();
    store.start_over(&checked("anew")).unwrap();
    assert_eq!(store.load().unwrap().state, checked("anew"));
    assert_eq!(sequences(folder.path()), [Some(5), None]);
    store.commit(&checked("next")).unwrap();
    assert_eq!(sequences(folder.path()), [Some(5), Some(6)]);
}

/// A power cut during a commit leaves one of these folders: the temporary file at any length with
/// the generations as they were, or, after the rename, the new generation whole.
#[test]
fn a_commit_cut_off_before_its_rename_leaves_the_old_state_and_no_litter() {
    let folder = TempDir::new().unwrap();
    commit(folder.path(), &checked("old"));
    commit(folder.path(), &checked("new"));
    let next = Generation {
        sequence: 3,
        state: checked("next"),
    };
    let bytes = next.encode().unwrap();
    let temporary = folder.path().join(".state-Xa81kQ");
    for len in [0, 1, 27, 28, 100, bytes.len()] {
        fs::write(&temporary, &bytes[..len]).unwrap();
        assert_eq!(load(folder.path()), checked("new"));
        assert!(!temporary.exists());
    }
    fs::write(&temporary, &bytes).unwrap();
    fs::rename(&temporary, folder.path().join("state.0")).unwrap();
    assert_eq!(load(folder.path()), checked("next"));
    commit(folder.path(), &checked("last"));
    assert_eq!(sequences(folder.path()), [Some(3), Some(4)]);
}

#[test]
fn a_refused_commit_leaves_the_state_as_it_was() {
    let folder = TempDir::new().unwrap();
    commit(folder.path(), &checked("old"));
    let mut store = FileStore::open(folder.path()).unwrap();
    let error = store.commit(&checked(&"x".repeat(257))).unwrap_err();
    assert!(matches!(error, FileStoreError::Limit(_)), "{error:?}");
    assert_eq!(store.load().unwrap().state, checked("old"));
}

#[test]
fn a_folder_is_held_by_one_store_at_a_time() {
    let folder = TempDir::new().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let error = FileStore::open(folder.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the state in {} is in use by another process; stop it, or ask it instead",
            folder.path().display()
        )
    );
    drop(store);
    FileStore::open(folder.path()).unwrap();
}

#[test]
fn a_file_where_the_folder_should_be_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state");
    fs::write(&path, b"").unwrap();
    let error = FileStore::open(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot create {}", path.display())
    );
}
