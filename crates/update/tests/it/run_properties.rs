use proptest::prelude::*;
use rekindle_update::run::{Check, End, Outcome};

use crate::run_world::{Answer, World};

/// Lines of every kind, with few serials so that they meet each other again.
fn line() -> impl Strategy<Value = String> {
    let word = || {
        prop::sample::select(vec![
            "ser", "reset", "ireset", "iresetn", "resetn", "reboot", "nop",
        ])
    };
    let serial = || prop::sample::select(vec!["1", "2", "p1", "b1"]);
    prop_oneof![
        (word(), serial()).prop_map(|(end, serial)| format!("mod cmd UP1 check {end} {serial}")),
        (0..3_u32).prop_map(|hour| format!("mod cmd UP1 times /allow 12,{hour}")),
        Just("mod cmd UP1 times /allow 1".to_owned()),
        Just("mod cmd UP1 times /allow 1 /initial 90".to_owned()),
        Just("mod cmd UP1 times /allow 1 /initial 6".to_owned()),
        (
            prop::sample::select(vec!["prot", "boot", "bmc"]),
            word(),
            serial()
        )
            .prop_map(|(verb, end, serial)| format!("mod cmd UP0 {verb} http://h/ {end} {serial}")),
        (word(), serial())
            .prop_map(|(end, serial)| format!("mod cmd UP0 scfg http://h/#b5 {end} {serial}")),
        (word(), serial())
            .prop_map(|(end, serial)| format!("mod cmd UP0 cfg http://h/ {end} {serial}")),
        Just("mod cmd UP0 scfg http://h/".to_owned()),
        Just("mod cmd UP0 prot".to_owned()),
        word().prop_map(str::to_owned),
        Just("config write".to_owned()),
        Just("# note".to_owned()),
    ]
}

fn answers() -> impl Strategy<Value = Vec<(u32, Answer)>> {
    let answer = prop::sample::select(vec![
        Answer::Fails,
        Answer::Refused,
        Answer::NotKnown,
        Answer::RunsAlready,
    ]);
    prop::collection::vec((1..12_u32, answer), 0..4)
}

prop_compose! {
    fn world()(
        answers in answers(),
        known in any::<bool>(),
        clock in any::<bool>(),
        busy in any::<bool>(),
        reset_required in any::<bool>(),
        store_fails in prop::bool::weighted(0.1),
    ) -> World {
        let mut world = World::new();
        world.answers.extend(answers);
        world.state.known = known;
        world.busy = busy;
        world.reset_required = reset_required;
        world.store_fails = store_fails;
        if !clock {
            world.without_clock();
        }
        world
    }
}

fn script() -> impl Strategy<Value = String> {
    prop::collection::vec(line(), 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn check_is_set_only_by_a_run_that_reached_its_end_without_a_failed_line(
        mut world in world(), script in script(),
    ) {
        let before = world.state.check.clone();
        let summary = world.run(script.as_bytes());
        let stored = world.log.iter().position(|entry| entry.starts_with("store CHECK="));
        prop_assert_eq!(world.state.check != before, summary.check == Some(Check::Set));
        let Some(stored) = stored else { return Ok(()) };

        let last = script.lines().count();
        let reached = summary.lines.last().map_or(0, |line| line.number);
        let trailing = script.lines().skip(usize::try_from(reached).unwrap());
        prop_assert!(trailing.clone().all(|line| line.starts_with('#')), "{reached} of {last}");
        let failed_before_its_final = summary.lines.iter().any(|line| {
            line.has_failed() && line.outcome != Outcome::CheckDiffers
        });
        prop_assert!(!failed_before_its_final);
        // After it comes its final command, and nothing else.
        prop_assert!(world.log.len() - stored <= 3, "{:?}", world.log);
    }

    #[test]
    fn a_failed_command_never_changes_its_variable(world in world(), script in script()) {
        let mut world = world;
        // Every line fails: nothing may change but that the device is known.
        world.answers = (1..20).map(|line| (line, Answer::Fails)).collect();
        let before = world.clone();
        let summary = world.run(script.as_bytes());
        let mut state = world.state.clone();
        state.known = before.state.known;
        if summary.check == Some(Check::Set) {
            state.check = before.state.check.clone();
        }
        prop_assert_eq!(state, before.state);
        for (name, slot) in &before.slots {
            prop_assert_eq!(&world.slots[name].serial, &slot.serial);
        }
    }

    #[test]
    fn a_repeated_run_with_nothing_new_does_nothing(
        mut world in world(),
        prot in "[a-z]{1,4}", boot in "[a-z]{1,4}", check in "[a-z]{1,4}", weekly in "[a-z]{1,4}",
    ) {
        world.answers.clear();
        world.store_fails = false;
        let script = format!(
            "mod cmd UP1 check iresetn {check}\n\
             mod cmd UP0 scfg http://h/#b5 ser {weekly}\n\
             mod cmd UP0 prot http://h/ ser {prot}\n\
             mod cmd UP0 boot http://h/ ser {boot}\n\
             iresetn"
        );
        for _ in 0..3 {
            world.run(script.as_bytes());
            world.reset_required = false;
        }
        world.log.clear();
        let summary = world.run(script.as_bytes());
        prop_assert_eq!(&world.log, &[""; 0]);
        prop_assert_eq!(summary.end, Some(End::UpToDate { line: 1 }));
    }

    #[test]
    fn a_restart_is_the_last_thing_that_happens(mut world in world(), script in script()) {
        let summary = world.run(script.as_bytes());
        let restarts = summary.lines.iter().enumerate().filter(|(_, line)| {
            use rekindle_update::run::ResetOutcome::{Pending, Started};
            matches!(line.outcome, Outcome::Reset(Started | Pending))
                || matches!(line.final_command, Some(Started | Pending))
        });
        let restarts: Vec<_> = restarts.map(|(_, line)| line.number).collect();
        match summary.end {
            Some(End::Restart { line }) => prop_assert_eq!(restarts, [line]),
            _ => prop_assert_eq!(restarts, [0; 0]),
        }
    }

    #[test]
    fn no_bytes_make_a_run_panic_or_hang(source in prop::collection::vec(any::<u8>(), 0..300)) {
        let summary = World::new().run(&source);
        prop_assert!(summary.end.is_some());
    }
}
