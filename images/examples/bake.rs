//! Writes the layers of images into one EROFS image and says what it cost:
//! `cargo run --release -p garboard-images --example bake -- none|lz4|zstd OUT IMAGE…`

use std::path::Path;
use std::time::Instant;

use garboard_images::erofs::Algorithm;
use garboard_images::{source, store::Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: bake none|lz4|zstd OUT IMAGE…";
    let compression = match arguments.next().as_deref() {
        Some("none") => None,
        Some("lz4") => Some(Algorithm::Lz4),
        Some("zstd") => Some(Algorithm::Zstd),
        _ => return Err(usage.into()),
    };
    let out = arguments.next().ok_or(usage)?;
    let start = Instant::now();
    let mut store = Store::new(&std::env::temp_dir())?;
    store.compress(compression);
    let mut read = 0;
    for reference in arguments {
        let image = source::open(&reference, Path::new("."))?;
        for n in 0..image.layers.len() {
            store.add_layer(&image, n, &mut |bytes| read += bytes)?;
        }
        for lower in store.lowers(&image)? {
            println!("{lower}");
        }
    }
    let added = start.elapsed();
    let mut file = std::fs::File::create(&out)?;
    let summary = store.finish(&mut file)?;
    println!("read {read} bytes in {added:?}, all in {:?}", start.elapsed());
    println!("{summary:#?}");
    let (image, contents) = (summary.blocks * 4096, summary.content_blocks * 4096);
    println!("{image} bytes, of them {contents} for {} bytes of contents", summary.content_bytes);
    Ok(())
}
