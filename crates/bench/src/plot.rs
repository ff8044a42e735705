//! The plot: processor time per operation beside that of bare h2, on a logarithmic axis.

use std::fmt::Write as _;

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    /// Place among the programs, which is its colour.
    pub(crate) program: usize,
    /// Against the base of the plot; `None` if it has no figure.
    pub(crate) ratio: Option<f64>,
    /// What stands behind it.
    pub(crate) label: String,
}

/// The bars of one workload.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

/// The plot.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) programs: Vec<String>,
    pub(crate) groups: Vec<Group>,
}

/// Ours first, bare h2 second; told apart by those who see no red or green too (after Okabe and
/// Ito).
const COLOURS: [&str; 9] = [
    "#d55e00", "#000000", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e69f00", "#999999",
    "#8b6f47",
];

const WIDTH: f64 = 860.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 10.0;
const GAP: f64 = 12.0;
const TOP: f64 = 78.0;

impl Plot {
    /// The plot as SVG.
    pub(crate) fn to_svg(&self) -> String {
        let ratios = self.groups.iter().flat_map(|group| &group.bars);
        let ratios = ratios.filter_map(|bar| bar.ratio).filter(|it| *it > 0.0);
        let (low, high) = ratios.fold((1.0_f64, 2.0_f64), |(low, high), ratio| {
            (low.min(ratio), high.max(ratio))
        });
        let axis = Axis {
            low: low.log2().floor(),
            high: high.log2().ceil(),
        };
        let bars: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let height = TOP + bars as f64 * BAR + self.groups.len() as f64 * GAP + 20.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"10\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        text(&mut svg, 10.0, 18.0, "start", 13, &self.title);
        self.legend(&mut svg);
        axis.draw(&mut svg, height);
        let mut y = TOP;
        for group in &self.groups {
            let middle = y + group.bars.len() as f64 * BAR / 2.0 + 3.0;
            text(&mut svg, LEFT - 8.0, middle, "end", 11, &group.name);
            for bar in &group.bars {
                axis.bar(&mut svg, bar, y);
                y += BAR;
            }
            y += GAP;
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn legend(&self, svg: &mut String) {
        let mut x = 10.0;
        for (at, program) in self.programs.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{colour}\"/>"
            );
            text(svg, x + 14.0, 39.0, "start", 11, program);
            x += 30.0 + 6.5 * program.chars().count() as f64;
        }
    }
}

/// Powers of two, from left to right.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn x(&self, ratio: f64) -> f64 {
        let share = (ratio.log2() - self.low) / (self.high - self.low).max(1.0);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn draw(&self, svg: &mut String, height: f64) {
        for power in self.low as i32..=self.high as i32 {
            let ratio = 2_f64.powi(power);
            let x = self.x(ratio);
            let colour = if power == 0 { "#000000" } else { "#dddddd" };
            let (y1, y2) = (TOP - 8.0, height - 12.0);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y1}\" y2=\"{y2}\" stroke=\"{colour}\"/>"
            );
            text(svg, x, TOP - 12.0, "middle", 10, &format!("{ratio}\u{d7}"));
        }
    }

    fn bar(&self, svg: &mut String, bar: &Bar, y: f64) {
        let start = self.x(1.0);
        let end = bar.ratio.map_or(start, |ratio| self.x(ratio));
        let (x, width) = (start.min(end), (start - end).abs().max(1.0));
        let colour = COLOURS[bar.program % COLOURS.len()];
        if bar.ratio.is_some() {
            let tall = BAR - 1.5;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{tall}\" fill=\"{colour}\"/>"
            );
        }
        let behind = start.max(end) + 4.0;
        text(svg, behind, y + BAR - 2.0, "start", 9, &bar.label);
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, size: u32, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of elements in their order, if every one is closed where it must be.
    fn elements(svg: &str) -> Option<Vec<String>> {
        let (mut open, mut all) = (Vec::new(), Vec::new());
        for part in svg.split('<').skip(1) {
            let (tag, words) = part.split_once('>')?;
            if words.contains('&')
                && !["&amp;", "&lt;", "&gt;"]
                    .iter()
                    .any(|it| words.contains(it))
            {
                return None;
            }
            if let Some(name) = tag.strip_prefix('/') {
                (open.pop()? == name).then_some(())?;
                continue;
            }
            let name = tag.split([' ', '/']).next()?.to_owned();
            if tag.matches('"').count() % 2 != 0 {
                return None;
            }
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            all.push(name);
        }
        open.is_empty().then_some(all)
    }

    #[test]
    fn the_plot_is_well_formed_and_has_a_bar_for_each_figure() {
        let bar = |program, ratio: Option<f64>| Bar {
            program,
            ratio,
            label: "1 & <2>".to_owned(),
        };
        let plot = Plot {
            title: "a < b".to_owned(),
            programs: vec!["ours".to_owned(), "R&D".to_owned()],
            groups: vec![
                Group {
                    name: "one".to_owned(),
                    bars: vec![bar(0, Some(1.1)), bar(1, Some(0.1)), bar(2, None)],
                },
                Group {
                    name: "two".to_owned(),
                    bars: vec![bar(10, Some(40.0)), bar(1, Some(f64::MAX))],
                },
            ],
        };
        let elements = elements(&plot.to_svg()).expect("well-formed");
        let rects = elements.iter().filter(|it| *it == "rect").count();
        assert_eq!(rects, 1 + 2 + 4, "background, legend and bars");
        assert!(!plot.to_svg().contains("NaN"));
    }

    #[test]
    fn an_empty_plot_is_a_plot() {
        let plot = Plot {
            title: String::new(),
            programs: Vec::new(),
            groups: Vec::new(),
        };
        assert!(elements(&plot.to_svg()).is_some());
    }
}
