//! The page in a real browser: what a reader sees, on a wide and a narrow window, light and dark, and
//! on paper.
//!
//! `SCALEBEAM_CHROMIUM=$(command -v chromium) cargo nextest run -p scalebeam-report --run-ignored only
//! -E 'test(/^browser_/)'`; with `SCALEBEAM_LOOK=DIR` the pictures stay there to be looked at.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to panic")]

#[path = "../src/testing.rs"]
mod testing;

/// Where the made-up run looks for what a report is made of.
mod spec {
    pub(crate) use scalebeam_report::{Kind, ReportSpec};
}

use resvg::tiny_skia::Pixmap;
use scalebeam_model::plan::Plan;
use scalebeam_model::results::Results;
use scalebeam_report::{Format, ReportInput, write_all};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const WIDE: (u32, u32) = (1280, 3200);

/// A page on disk, and a browser's own directory beside it.
struct Page {
    dir: tempfile::TempDir,
}

impl Page {
    fn of(results: &Results, plan: &Plan) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let specs = testing::specs();
        let formats = [Format::Html];
        let input = ReportInput { results, plan, specs: &specs, formats: &formats, profile: None };
        write_all(&input, dir.path()).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the browser on `name`; nothing may go wrong, and nothing may be said on the console.
    fn browse(&self, name: &str, (width, height): (u32, u32), flags: &[&str]) -> String {
        let browser = std::env::var_os("SCALEBEAM_CHROMIUM");
        let browser = browser.expect("SCALEBEAM_CHROMIUM has to name a Chromium to run this test");
        let profile = tempfile::tempdir_in(self.dir.path()).unwrap();
        let output: Output = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files"])
            .args(["--enable-logging=stderr", "--v=0", "--timeout=20000"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={width},{height}"))
            .args(flags)
            .arg(format!("file://{}", self.path(name).display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}", output.status);
        for line in said.lines() {
            assert!(!line.contains("CONSOLE"), "the page has an error: {line}");
        }
        String::from_utf8(output.stdout).unwrap()
    }

    fn dom(&self) -> String {
        self.browse("report.html", WIDE, &["--dump-dom"])
    }

    /// What a script of ours says of the page in a frame that is `width` wide.
    fn ask(&self, width: u32, script: &str) -> Vec<String> {
        let wrapper = format!(
            "<!doctype html><iframe id=f src=report.html \
             style='border:0;width:{width}px;height:900px'></iframe><pre id=answer></pre><script>\
             document.getElementById('f').addEventListener('load', (event) => {{\
             const page = event.target.contentDocument, view = event.target.contentWindow;\
             const answer = (() => {{ {script} }})();\
             document.getElementById('answer').textContent = 'ANSWER\\n' + answer.join('\\n') + '\\nEND';\
             }});</script>"
        );
        std::fs::write(self.path("wrapper.html"), wrapper).unwrap();
        let dom = self.browse("wrapper.html", WIDE, &["--dump-dom"]);
        let (_, rest) = dom.split_once("<pre id=\"answer\">ANSWER\n").expect("the script answers");
        let (answer, _) = rest.split_once("\nEND").unwrap();
        answer.lines().map(str::to_owned).collect()
    }

    fn screenshot(&self, name: &str, size: (u32, u32), flags: &[&str]) -> Pixmap {
        let path = self.path(name);
        let shot = format!("--screenshot={}", path.display());
        let flags: Vec<&str> = flags.iter().copied().chain([shot.as_str()]).collect();
        self.browse("report.html", size, &flags);
        keep(&path, name);
        Pixmap::load_png(&path).unwrap()
    }
}

/// Leaves a file to be looked at, where that is asked for.
fn keep(path: &Path, name: &str) {
    if let Some(dir) = std::env::var_os("SCALEBEAM_LOOK") {
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::copy(path, Path::new(&dir).join(name)).unwrap();
    }
}

/// Mean brightness of a picture, 0 to 1, and how many different colours it has.
fn light_and_colours(picture: &Pixmap) -> (f64, usize) {
    let pixels = picture.pixels();
    let sum: u64 = pixels
        .iter()
        .map(|p| u64::from(p.red()) + u64::from(p.green()) + u64::from(p.blue()))
        .sum();
    let mut colours: Vec<(u8, u8, u8)> =
        pixels.iter().map(|p| (p.red(), p.green(), p.blue())).collect();
    colours.sort_unstable();
    colours.dedup();
    (sum as f64 / (pixels.len() as f64 * 765.0), colours.len())
}

/// Runs that a page has to stand: the usual one, many deployments with long names, bars as wide as
/// their numbers, one point, none.
fn runs() -> Vec<(&'static str, Results, Plan)> {
    let (results, plan) = testing::run();
    let (crowded, crowded_plan) = testing::crowded();
    let mut tight = results.clone();
    tight.points.retain(|p| p.level != "c256");
    for users in [96, 128, 160] {
        let more = results.points.iter().filter(|p| p.level == "c64").cloned().map(|mut p| {
            p.level = format!("c{users}");
            p.concurrency = Some(users);
            p
        });
        tight.points.extend(more);
    }
    let mut one = results.clone();
    one.points.truncate(1);
    one.comparisons.clear();
    one.verdicts.clear();
    let mut none = one.clone();
    none.points.clear();
    none.expects.clear();
    none.incomplete = true;
    vec![
        ("usual", results, plan.clone()),
        ("crowded", crowded, crowded_plan),
        ("tight", tight, plan.clone()),
        ("one", one, plan.clone()),
        ("none", none, plan),
    ]
}

#[test]
#[ignore = "needs Chromium; ci/test runs it"]
fn browser_shows_the_verdict_first_and_every_point() {
    let (results, plan) = testing::run();
    let dom = Page::of(&results, &plan).dom();
    let verdict = dom.find(&results.verdicts[0].text).expect("the verdict");
    assert!(verdict < dom.find("<table").unwrap(), "the verdict is first");
    for point in &results.points {
        let row = format!("<th scope=\"row\">{}</th>", point.deployment);
        let id = format!("{} / {} / {}", point.deployment, point.load, point.level);
        assert!(dom.contains(&row) && dom.contains(&id), "{id}");
        for reason in &point.trust.reasons {
            let next = dom.find(&reason.next_step).expect("what to do next");
            assert!(dom.contains(&reason.message) && next < dom.find("<table").unwrap());
        }
    }
    for skipped in &results.skipped {
        assert!(dom.contains(skipped.reason.lines().next().unwrap()), "{}", skipped.deployment);
    }
}

#[test]
#[ignore = "needs Chromium; ci/test runs it"]
fn browser_never_scrolls_the_page_sideways() {
    for (name, results, plan) in runs() {
        let page = Page::of(&results, &plan);
        for width in [320, 400, 768, 1280] {
            let answer = page.ask(
                width,
                "const root = page.documentElement;\
                 const reaches = (e) => e.getBoundingClientRect().right > view.innerWidth + 1;\
                 const out = [...page.body.querySelectorAll('*')].filter((e) => reaches(e) && \
                 !e.parentElement.closest('.wide') && !e.closest('svg'));\
                 return [root.scrollWidth, root.clientWidth, \
                 out.map((e) => e.tagName + ' ' + e.textContent.slice(0, 40)).join('; ')];",
            );
            let [scroll, client] = [&answer[0], &answer[1]].map(|n| n.parse::<u32>().unwrap());
            assert!(client > 0 && scroll <= client, "{name} at {width}: {answer:?}");
            assert!(answer.get(2).is_none_or(String::is_empty), "{name} at {width}: {answer:?}");
        }
    }
}

#[test]
#[ignore = "needs Chromium; ci/test runs it"]
fn browser_finds_a_page_that_can_be_read_aloud_and_by_keyboard() {
    let (results, plan) = testing::run();
    let answer = Page::of(&results, &plan).ask(
        400,
        "const all = (s) => [...page.querySelectorAll(s)];\
         const ids = all('[id]').map((e) => e.id);\
         const scrolls = (e) => e.scrollWidth > e.clientWidth + 1;\
         return [\
         'lang ' + page.documentElement.lang,\
         'title ' + page.title,\
         'h1 ' + all('h1').length,\
         'double ids ' + ids.filter((id, i) => ids.indexOf(id) !== i).join(' '),\
         'dead links ' + all('a').filter((a) => !page.getElementById(a.hash.slice(1))).length,\
         'unnamed pictures ' + all('svg').filter((s) => !s.querySelector('title, desc')).length,\
         'stuck ' + all('.wide').filter((e) => scrolls(e) && e.tabIndex !== 0).length,\
         'unnamed regions ' + all('[role=region]').filter((e) => !e.ariaLabel).length,\
         'loose heads ' + all('th:not([scope])').length,\
         'requests ' + view.performance.getEntriesByType('resource').length];",
    );
    let name = &results.name;
    let wanted = [
        "lang en".to_owned(),
        format!("title {name} - scalebeam"),
        "h1 1".to_owned(),
        "double ids ".to_owned(),
        "dead links 0".to_owned(),
        "unnamed pictures 0".to_owned(),
        "stuck 0".to_owned(),
        "unnamed regions 0".to_owned(),
        "loose heads 0".to_owned(),
        "requests 0".to_owned(),
    ];
    assert_eq!(answer, wanted);
}

#[test]
#[ignore = "needs Chromium; ci/test runs it"]
fn browser_draws_no_text_of_a_chart_on_another_or_outside() {
    for (name, results, plan) in runs() {
        // In the browser's own font, which is wider than the one that charts are laid out for.
        let answer = Page::of(&results, &plan).ask(
            1280,
            "const found = [];\
             for (const svg of page.querySelectorAll('svg')) {\
             const frame = svg.getBoundingClientRect();\
             const texts = [...svg.querySelectorAll('text:not([aria-hidden])')]\
             .filter((t) => !/rotate\\((?!-90 )/.test(t.getAttribute('transform') || ''))\
             .map((t) => [t.textContent, t.getBoundingClientRect()]);\
             for (const [a, x] of texts) if (x.right > frame.right + 1 || x.left < frame.left - 1) \
             found.push(a + ' leaves its picture');\
             for (const [i, [a, x]] of texts.entries()) for (const [b, y] of texts.slice(i + 1)) {\
             const wide = Math.min(x.right, y.right) - Math.max(x.left, y.left);\
             const high = Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top);\
             if (wide > -1 && high > 5) found.push(a + ' on ' + b + ' in ' + \
             svg.querySelector('title').textContent);\
             } }\
             return found;",
        );
        let answer: Vec<&String> = answer.iter().filter(|line| !line.is_empty()).collect();
        assert!(answer.is_empty(), "{name}: {answer:#?}");
    }
}

#[test]
#[ignore = "needs Chromium; ci/test runs it"]
fn browser_paints_the_page_light_dark_and_on_paper() {
    for (name, results, plan) in runs() {
        let page = Page::of(&results, &plan);
        let light = page.screenshot(&format!("{name}-light.png"), WIDE, &[]);
        let (brightness, colours) = light_and_colours(&light);
        assert!((light.width(), light.height()) == WIDE && brightness > 0.8, "{name} {brightness}");
        assert!(colours > 50, "{name}: a page of {colours} colours is blank");
        let scheme = ["--blink-settings=preferredColorScheme=0"];
        let dark = page.screenshot(&format!("{name}-dark.png"), WIDE, &scheme);
        let (brightness, colours) = light_and_colours(&dark);
        assert!(brightness < 0.3 && colours > 50, "{name} in the dark: {brightness}, {colours}");
        let paper = page.path("paper.pdf");
        let print = format!("--print-to-pdf={}", paper.display());
        page.browse("report.html", WIDE, &[&print, "--no-pdf-header-footer"]);
        keep(&paper, &format!("{name}.pdf"));
        assert!(std::fs::read(&paper).unwrap().starts_with(b"%PDF-"));
    }
}
