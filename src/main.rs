//! The `edgeward` binary: hands the command line to the library and turns the outcome into an exit status.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    edgeward::cli::main()
}
