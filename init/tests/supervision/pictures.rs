//! Pictures of the console for README.md: a supervisor with real containers, a person's keys, and the cells of the terminal that
//! they make, drawn with a bitmap font. The machine around them (network, disk) is what workers that only pretend report. Only when `GARBOARD_PICTURES` names a directory; `init/console-pictures` does that.

use std::path::Path;
use std::time::Duration;

use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyleBuilder, ascii};
use embedded_graphics::pixelcolor::{Gray8, GrayColor};
use embedded_graphics::prelude::{DrawTarget, Drawable, Pixel};
use embedded_graphics::text::{Baseline, Text};
use garboard_runtime::plan::{self, Access, Condition, HealthCheck, HealthTest, Restart};

use crate::rig::{Rig, Setup, after, shell, with};

/// By name; none without a directory to write to.
pub fn tests() -> &'static [(&'static str, fn())] {
    let wanted = std::env::var_os("GARBOARD_PICTURES").is_some();
    if wanted { &[("pictures::of_the_console", of_the_console)] } else { &[] }
}

/// Background, foreground, red, green, yellow, cyan.
const PALETTE: [[u8; 3]; 6] =
    [[17, 21, 28], [208, 212, 220], [240, 113, 106], [126, 199, 123], [226, 182, 92], [108, 184, 201]];
const FONTS: [&MonoFont<'_>; 2] = [&ascii::FONT_9X18, &ascii::FONT_9X18_BOLD];
const CELL: (u32, u32) = (9, 18);
const MARGIN: u32 = 10;

fn of_the_console() {
    let directory = std::env::var_os("GARBOARD_PICTURES").unwrap();
    let directory = Path::new(&directory);
    let access = Access::Control(crate::console::HASH.into());
    let rig = Rig::with(
        containers(),
        Setup {
            access: Some(access),
            name: Some("shop"),
            data: Some(false),
            files: &[
                ("modules", r#"{"loaded":3,"failed":[],"absent":[]}"#),
                ("data", r#"{"state":"mounted","detail":"","bytes":34359738368}"#),
                ("network", r#"{"uplink":"eth0","addresses":["10.0.2.15/24"],"state":"up","detail":""}"#),
            ],
            ..Setup::default()
        },
    );
    rig.wait_console("| 3 of 3");
    std::thread::sleep(Duration::from_secs(14));
    rig.press(" ");
    rig.wait_screen(">web");
    rig.press("jjj");
    rig.wait_screen(">importer");
    std::thread::sleep(Duration::from_secs(3));
    save(&rig.screen(), &directory.join("dashboard.png"));
    rig.press("gl");
    rig.wait_screen("LOG OF web");
    rig.wait_screen("GET");
    save(&rig.screen(), &directory.join("log.png"));
    rig.press("?");
    rig.wait_screen("KEYS");
    save(&rig.screen(), &directory.join("help.png"));
}

/// A shop, or what looks like one.
fn containers() -> Vec<plan::Container> {
    let web = "echo listening on port 8080; i=0; while true; do i=$((i+1)); \
        echo \"10.0.2.$((i % 7 + 2)) GET /orders/$((1000 + i * 37 % 900)) 200 $((i * 13 % 90 + 4)) ms\"; \
        [ $((i % 9)) = 0 ] && echo \"10.0.2.9 POST /cart 200 $((i * 7 % 40 + 21)) ms, user agent \
        Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0, session kept for 30 minutes\"; usleep 400000; done";
    let health = |test: &str| HealthCheck {
        test: HealthTest::Exec(vec!["/bin/sh".into(), "-c".into(), test.into()]),
        interval_ms: 1_000,
        timeout_ms: 1_000,
        retries: 2,
        start_period_ms: 0,
        start_interval_ms: 1_000,
        restart: false,
    };
    let watched = |test: &str, mut container: plan::Container| {
        container.supervision.health = Some(health(test));
        container
    };
    let image = |name: &str, container: plan::Container| plan::Container { image: name.into(), ..container };
    let load = "while true; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; usleep 20000; done";
    vec![
        image("registry.example.com/shop/web:2.4", watched("true", with(Restart::Always, shell("web", web)))),
        image("docker.io/library/postgres:18", watched("true", with(Restart::Always, shell("db", "exec sleep 10000")))),
        image("docker.io/library/redis:8", watched("false", with(Restart::Always, shell("cache", load)))),
        image(
            "registry.example.com/shop/importer:0.9",
            with(Restart::Always, shell("importer", "echo no route to 192.0.2.40; usleep 300000; exit 7")),
        ),
        image(
            "registry.example.com/shop/backup:1.1",
            shell("backup", "for i in 1 2 3; do echo $i of 3; usleep 200000; done"),
        ),
        after(
            4,
            Condition::Completed,
            image("registry.example.com/shop/report:1.0", shell("report", "exec sleep 10000")),
        ),
    ]
}

/// A picture in the making: a number of [`PALETTE`] for each dot.
struct Canvas {
    size: Size,
    dots: Vec<u8>,
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Canvas {
    type Color = Gray8;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Gray8>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(point, color) in pixels {
            let at = point.y as usize * self.size.width as usize + point.x as usize;
            self.dots[at] = color.luma();
        }
        Ok(())
    }
}

fn save(screen: &vt100::Screen, path: &Path) {
    let (rows, columns) = screen.size();
    let (rows, columns) = (u32::from(rows.get()), u32::from(columns.get()));
    let size = Size::new(columns * CELL.0 + 2 * MARGIN, rows * CELL.1 + 2 * MARGIN);
    let mut canvas = Canvas { size, dots: vec![0; (size.width * size.height) as usize] };
    for row in 0..rows {
        for column in 0..columns {
            let Some(cell) = screen.cell(row as u16, column as u16) else { continue };
            let color = match cell.fgcolor() {
                vt100::Color::Idx(1) => 2,
                vt100::Color::Idx(2) => 3,
                vt100::Color::Idx(3) => 4,
                vt100::Color::Idx(6) => 5,
                _ => 1,
            };
            let (front, back) = if cell.inverse() { (0, color) } else { (color, 0) };
            let style = MonoTextStyleBuilder::new()
                .font(FONTS[usize::from(cell.bold())])
                .text_color(Gray8::new(front))
                .background_color(Gray8::new(back))
                .build();
            let text = if cell.contents().is_empty() { " " } else { cell.contents() };
            let place = Point::new((MARGIN + column * CELL.0) as i32, (MARGIN + row * CELL.1) as i32);
            Text::with_baseline(text, place, style, Baseline::Top).draw(&mut canvas).unwrap();
        }
    }
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), size.width, size.height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Four);
    encoder.set_compression(png::Compression::High);
    encoder.set_palette(PALETTE.concat());
    let packed: Vec<u8> = canvas
        .dots
        .chunks(size.width as usize)
        .flat_map(|row| row.chunks(2).map(|two| (two[0] << 4) | two.get(1).copied().unwrap_or(0)))
        .collect();
    encoder.write_header().unwrap().write_image_data(&packed).unwrap();
}
