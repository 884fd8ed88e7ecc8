//! Runs cases, each in a lab of its own, and tells how they ended.

use crate::lab::Lab;
use crate::style::{bold, dim, green, red};
use anyhow::{Result, anyhow};
use std::io::Write;
use std::time::Instant;

/// So many lines of what was wrong are told once more at the end.
const LAST: usize = 4;

/// What a case does in its lab.
pub(crate) type Act = Box<dyn Fn(&mut Lab) -> Result<()>>;

/// One case: its name says what must hold.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) run: Act,
}

/// Runs the cases in labs with this prefix; returns how many passed and failed.
pub(crate) fn run(what: &str, prefix: &str, cases: &[Case]) -> Result<(usize, usize)> {
    println!("\n{} {what} in network namespaces", cases.len());
    let (mut passed, mut failures) = (0, Vec::new());
    for case in cases {
        print!("case {} … ", case.name);
        std::io::stdout().flush()?;
        let started = Instant::now();
        let outcome = one(case, prefix);
        let seconds = dim(&format!("({:.1} s)", started.elapsed().as_secs_f64()));
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("{} {seconds}", green("ok"));
            }
            Err(error) => {
                let why = format!("{error:#}");
                println!("{} {seconds}\n    {why}", red("FAILED"));
                failures.push((&case.name, why));
            }
        }
    }
    if !failures.is_empty() {
        println!("\n{}", bold(&format!("failed {what}:")));
        // Whoever sees only the end of a long log sees why.
        for (name, why) in &failures {
            println!("    {name}");
            let mut last: Vec<&str> = why.lines().filter(|l| !l.trim().is_empty()).collect();
            for line in last.split_off(last.len().saturating_sub(LAST)) {
                println!("        {}", line.trim());
            }
        }
    }
    Ok((passed, failures.len()))
}

fn one(case: &Case, prefix: &str) -> Result<()> {
    let mut lab = Lab::up(prefix, 1)?;
    let outcome = (case.run)(&mut lab);
    outcome.map_err(|error| {
        let crashed: Vec<String> = lab
            .unexpected_ends()
            .into_iter()
            .map(|place| format!("\n    {place} had ended: {}", lab.log_tail(place)))
            .collect();
        match crashed.is_empty() {
            true => error,
            false => anyhow!("{error:#}{}", crashed.concat()),
        }
    })
}
