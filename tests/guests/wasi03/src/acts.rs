//! Acts that only the caller can judge, as in `wasi02`: see there.

use wasip3::cli::{
    environment, exit, stderr, stdin, stdout, terminal_stderr, terminal_stdin, terminal_stdout,
};
use wasip3::clocks::monotonic_clock;
use wasip3::wit_stream;

pub(crate) async fn act(arguments: &[String]) -> Result<(), ()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["cat"] => {
            let (input, ended) = stdin::read_via_stream();
            stdout::write_via_stream(input).await.unwrap();
            ended.await.unwrap();
        }
        ["bytes"] => {
            print((0..=255).collect()).await;
            let (mut writer, reader) = wit_stream::new();
            let written = stderr::write_via_stream(reader);
            assert!(writer.write_all((0..=255).rev().collect()).await.is_empty());
            drop(writer);
            written.await.unwrap();
        }
        ["flood"] => {
            let (mut writer, reader) = wit_stream::new();
            let written = stdout::write_via_stream(reader);
            // The stream's other end goes when nobody reads any more, and then it says why.
            while writer.write_all(vec![b'x'; 4096]).await.is_empty() {}
            drop(writer);
            eprintln!("{:?}", written.await.unwrap_err());
            exit::exit_with_code(3);
        }
        ["take", count] => {
            let (mut input, _) = stdin::read_via_stream();
            let mut taken = Vec::new();
            for _ in 0..count.parse().unwrap() {
                taken.push(input.next().await.unwrap());
            }
            print(taken).await;
        }
        ["terminals"] => {
            let text = format!(
                "stdin {} stdout {} stderr {}\n",
                terminal_stdin::get_terminal_stdin().is_some(),
                terminal_stdout::get_terminal_stdout().is_some(),
                terminal_stderr::get_terminal_stderr().is_some()
            );
            print(text.into_bytes()).await;
        }
        ["exit", "ok"] => exit::exit(Ok(())),
        ["exit", "err"] => exit::exit(Err(())),
        ["exit", code] => exit::exit_with_code(code.parse().unwrap()),
        ["return", "err"] => return Err(()),
        ["arguments", ..] => print((environment::get_arguments().join("\n") + "\n").into_bytes()).await,
        ["environment"] => {
            let lines =
                environment::get_environment().into_iter().map(|(name, value)| format!("{name}={value}\n"));
            print(lines.collect::<String>().into_bytes()).await;
        }
        ["wait"] => {
            print(b"waiting\n".to_vec()).await;
            monotonic_clock::wait_for(3600 * 1_000_000_000).await;
        }
        ["spin"] => {
            print(b"spinning\n".to_vec()).await;
            loop {
                std::hint::black_box(());
            }
        }
        ["trap"] => std::process::abort(),
        _ => panic!("nothing it does: {arguments:?}"),
    }
    Ok(())
}

async fn print(bytes: Vec<u8>) {
    let (mut writer, reader) = wit_stream::new();
    let written = stdout::write_via_stream(reader);
    assert!(writer.write_all(bytes).await.is_empty());
    drop(writer);
    written.await.unwrap();
}
