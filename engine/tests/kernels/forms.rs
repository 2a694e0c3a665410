//! Which forms were compared on this machine.

use engine::kernels::isa::{Isa, NAMES};

#[test]
fn the_forms_that_ran_here_are_named() {
    let ran: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    for name in NAMES {
        let verdict =
            if ran.contains(&name) { "compared" } else { "NOT RUN: this processor lacks it" };
        println!("form {name}: {verdict}");
    }
    assert!(ran.contains(&"portable"));
}
