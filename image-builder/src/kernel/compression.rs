//! Whether a kernel reads a compressed system image, as far as its release and its configuration tell.

use anyhow::{Result, bail};
use garboard_images::erofs::Algorithm;

use super::image::version;

/// The first release that reads zstd in EROFS.
const ZSTD: (u32, u32) = (6, 10);

/// Refuses an algorithm that the kernel lacks. `config` is its configuration, a line for each option; without one only the
/// release counts, and PID 1 says at boot what is missing.
pub fn require(algorithm: Algorithm, release: &str, config: Option<&str>) -> Result<()> {
    let option = match algorithm {
        Algorithm::Lz4 => "CONFIG_EROFS_FS_ZIP",
        Algorithm::Zstd => "CONFIG_EROFS_FS_ZIP_ZSTD",
    };
    let fix = match algorithm {
        Algorithm::Lz4 => "write compression = \"none\" in [system], or choose another kernel",
        Algorithm::Zstd => "write compression = \"lz4\" in [system], or choose another kernel",
    };
    if algorithm == Algorithm::Zstd && version(release) < ZSTD {
        bail!("kernel {release} can't read compression = \"zstd\", which came with {}.{}: {fix}", ZSTD.0, ZSTD.1);
    }
    let set = |config: &str| config.lines().any(|line| line.strip_prefix(option) == Some("=y"));
    if config.is_some_and(|config| !set(config)) {
        bail!("kernel {release} can't read compression = \"{}\", for it lacks {option}: {fix}", algorithm.name());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_and_configuration_are_asked() {
        let both = "CONFIG_EROFS_FS=m\nCONFIG_EROFS_FS_ZIP=y\nCONFIG_EROFS_FS_ZIP_ZSTD=y\n";
        let only_lz4 = "CONFIG_EROFS_FS=m\nCONFIG_EROFS_FS_ZIP=y\n# CONFIG_EROFS_FS_ZIP_ZSTD is not set\n";
        let says = |algorithm, release, config| require(algorithm, release, config).unwrap_err().to_string();
        require(Algorithm::Lz4, "6.1.0-9", Some(both)).unwrap();
        require(Algorithm::Lz4, "6.1.0-9", Some(only_lz4)).unwrap();
        require(Algorithm::Lz4, "5.19.0", None).unwrap();
        require(Algorithm::Zstd, "6.12.1", Some(both)).unwrap();
        require(Algorithm::Zstd, "6.10.0", None).unwrap();
        assert!(says(Algorithm::Zstd, "6.9.12", Some(both)).contains("6.10: write compression = \"lz4\""));
        assert!(says(Algorithm::Zstd, "6.12.1", Some(only_lz4)).contains("lacks CONFIG_EROFS_FS_ZIP_ZSTD: write"));
        assert!(says(Algorithm::Lz4, "6.12.1", Some("")).contains("lacks CONFIG_EROFS_FS_ZIP: write"));
    }
}
