//! The program `evergate`: the node, and the commands that speak to a running one.

fn main() -> std::process::ExitCode {
    evergate::cli::main()
}
