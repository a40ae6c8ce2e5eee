"""Forms for `demo-document`: fields with labels and values, laid out on a page in many ways.

Training and exam share neither a layout (placement, columns, separator, alignment, spacing) nor a
value. A form is words with boxes; it can be drawn as a picture or written as a PDF with a text layer.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image, ImageDraw

from samples.inputs.lines import CHARACTERS, CODAS, LONGEST, MONTHS, ONSETS, VOWELS, Line, load_font
from samples.inputs.split import is_held_out

PAGE = (595, 842)
FONT = "DejaVuSans.ttf"
SCALE = 2
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Word:
    """A word on a page: its text, its box (left, top, right, bottom) in points, and its size in points."""

    text: str
    box: Box
    size: float


@dataclass
class Form:
    """A page of words in reading order; for each field the answer, and the first and last word of value and label."""

    words: list[Word] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The words' texts."""
        return [word.text for word in self.words]

    @property
    def boxes(self) -> list[list[int]]:
        """The words' boxes in thousandths of the page."""
        return [
            [min(1000, max(0, round(1000 * edge / PAGE[i % 2]))) for i, edge in enumerate(word.box)]
            for word in self.words
        ]


def pseudo_word(rng: random.Random) -> str:
    """Make up a word that can be spoken."""
    syllables = rng.choices((1, 2, 3), (3, 5, 1))[0]
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables)) + rng.choice(CODAS)


def _name(rng: random.Random) -> str:
    return " ".join(pseudo_word(rng).capitalize() for _ in range(rng.choices((2, 3), (4, 1))[0]))


def _code(rng: random.Random) -> str:
    prefix = "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=rng.randint(0, 3)))
    number = "".join(rng.choices("0123456789", k=rng.randint(3, 6)))
    return f"{prefix}{rng.choice('-/') if prefix else ''}{number}"


def _date(rng: random.Random) -> str:
    year, month, day = rng.randint(1990, 2039), rng.randint(1, 12), rng.randint(1, 28)
    forms = (
        f"{year}-{month:02}-{day:02}",
        f"{day:02}/{month:02}/{year}",
        f"{day} {MONTHS[month - 1]} {year}",
        f"{MONTHS[month - 1]} {day}, {year}",
    )
    return rng.choice(forms)


def _amount(rng: random.Random) -> str:
    return f"{rng.choice(('$', '$', '', 'EUR '))}{rng.randrange(10 ** rng.randint(1, 5)):,}.{rng.randrange(100):02}"


def _phone(rng: random.Random) -> str:
    groups = ["".join(rng.choices("0123456789", k=k)) for k in (3, 3, 4)]
    return rng.choice(("{}-{}-{}", "({}) {}-{}", "{} {} {}")).format(*groups)


def _email(rng: random.Random) -> str:
    while True:
        email = f"{pseudo_word(rng)}@{pseudo_word(rng)}.{rng.choice(('com', 'org', 'net'))}"
        # A scanned page is read by `demo-ocr`, which knows no longer words.
        if len(email) <= LONGEST:
            return email


def _place(rng: random.Random) -> str:
    street = f"{rng.randint(1, 300)} {pseudo_word(rng).capitalize()} {rng.choice(('Street', 'Road', 'Lane'))}"
    return rng.choice((street, pseudo_word(rng).capitalize()))


def _anything(rng: random.Random) -> str:
    return rng.choice((_name, _code, _date, _amount, _phone, _email, _place))(rng)


# What is asked for, how forms label it, and what stands there.
FIELDS: dict[str, tuple[tuple[str, ...], Callable[[random.Random], str]]] = {
    "invoice number": (("Invoice number", "Invoice no.", "Invoice #", "INVOICE NUMBER"), _code),
    "order number": (("Order number", "Order no.", "Order #", "ORDER NUMBER"), _code),
    "invoice date": (("Invoice date", "Date of invoice", "INVOICE DATE"), _date),
    "due date": (("Due date", "Payment due", "Due", "DUE DATE"), _date),
    "total": (("Total", "Total amount", "Grand total", "TOTAL"), _amount),
    "tax": (("Tax", "Sales tax", "Tax amount", "TAX"), _amount),
    "name": (("Name", "Full name", "NAME"), _name),
    "customer": (("Customer", "Customer name", "CUSTOMER"), _name),
    "phone number": (("Phone", "Phone number", "Telephone", "PHONE"), _phone),
    "email address": (("Email", "E-mail", "Email address", "EMAIL"), _email),
    "address": (("Address", "Street address", "ADDRESS"), _place),
    "account": (("Account", "Account no.", "ACCOUNT"), _code),
}
QUESTIONS = ("What is the {}?", "What is the {}?", "{}", "{}?", "Find the {}.", "Which {} is given?")
TITLES = ("Invoice", "INVOICE", "Order form", "Receipt", "Statement", "Registration", "Application form")
FILLER = "Thank you for your business please keep this page all prices are final see the other side"


@dataclass(frozen=True)
class Layout:
    """How labels and values stand on the page; spacing in points."""

    below: bool
    columns: int
    separator: str
    aligned: bool
    spacing: int

    @property
    def held_out(self) -> bool:
        """Whether training never lays a form out like this."""
        return is_held_out(f"layout {self}")


def draw_layout(rng: random.Random, *, held_out: bool) -> Layout:
    """Draw a layout from one side of the split."""
    while True:
        below = rng.random() < 0.35
        columns = rng.choice((1, 2, 3)) if below else rng.choice((1, 1, 2))
        layout = Layout(below, columns, rng.choice((":", ":", "", " -")), rng.random() < 0.5, rng.choice((6, 12, 20)))
        if layout.held_out == held_out:
            return layout


def draw_value(make: Callable[[random.Random], str], rng: random.Random, *, held_out: bool) -> str:
    """Draw a value from one side of the split."""
    while True:
        value = make(rng)
        if is_held_out(f"value {value}") == held_out:
            return value


def draw_form(rng: random.Random, *, held_out: bool) -> Form:
    """Draw a form of 6 to 9 fields, a third of them under labels that are made up."""
    form, layout = Form(), draw_layout(rng, held_out=held_out)
    size = rng.choice((9, 10, 11, 12, 14))
    top = _write(form, rng.choice(TITLES).split(), (rng.uniform(40, 300), rng.uniform(30, 90)), size * 1.6)
    if rng.random() < 0.5:
        top = _write(form, _filler(rng), (rng.uniform(40, 80), top + 10), size)
    left, top = rng.uniform(30, 70), top + rng.uniform(15, rng.choice((60, 300)))
    items = _items(rng, held_out=held_out)
    gutter = max(_length(f"{label}{layout.separator}", size) for _, label, _ in items) + size
    for start in range(0, len(items), layout.columns):
        row = items[start : start + layout.columns]
        cells = [(left + index * (PAGE[0] - left - 10) / layout.columns, item) for index, item in enumerate(row)]
        top = _lay_row(form, layout, cells, top, gutter, size) + layout.spacing
    if rng.random() < 0.6:
        _write(form, _filler(rng), (rng.uniform(40, 80), top + rng.uniform(10, 60)), size)
    return form


def _items(rng: random.Random, *, held_out: bool) -> list[tuple[str, str, str]]:
    """Draw what is asked for, the label and the value of each field."""
    items = []
    for key in rng.sample(list(FIELDS), rng.randint(4, 6)):
        labels, make = FIELDS[key]
        items.append((key, rng.choice(labels), draw_value(make, rng, held_out=held_out)))
    for _ in range(rng.randint(2, 3)):
        key = " ".join(pseudo_word(rng) for _ in range(rng.choice((1, 1, 2)))).capitalize()
        items.append((key, key, draw_value(_anything, rng, held_out=held_out)))
    rng.shuffle(items)
    return items


def _lay_row(
    form: Form,
    layout: Layout,
    cells: Sequence[tuple[float, tuple[str, str, str]]],
    top: float,
    gutter: float,
    size: float,
) -> float:
    """Write a row of labels with their values beside or below them, and return where it ends."""
    if layout.below:
        for left, (key, label, _) in cells:
            form.labels[key] = _write_part(form, f"{label}{layout.separator}", (left, top), size)
        top += size * 1.3
    for left, (key, label, value) in cells:
        if not layout.below:
            text = f"{label}{layout.separator}"
            form.labels[key] = _write_part(form, text, (left, top), size)
            left += gutter if layout.aligned else _length(text, size) + size * 0.6
        form.answers[key] = value
        form.spans[key] = _write_part(form, value, (left, top), size)
    return top + size * 1.3


def _write_part(form: Form, text: str, at: tuple[float, float], size: float) -> tuple[int, int]:
    """Write a label or a value and return its first and last word."""
    first = len(form.words)
    _write(form, text.split(), at, size)
    return first, len(form.words) - 1


def _filler(rng: random.Random) -> list[str]:
    return rng.choices(FILLER.split(), k=rng.randint(4, 8))


def _length(text: str, size: float) -> float:
    return load_font(FONT, 20).getlength(text) * size / 20


def _write(form: Form, words: Sequence[str], at: tuple[float, float], size: float) -> float:
    """Write words on one line and return where the line ends."""
    left, top = at
    for word in words:
        right = left + _length(word, size)
        form.words.append(Word(word, (left, top, right, top + size), size))
        left = right + size * 0.3
    return top + size * 1.3


def as_read(form: Form, rng: random.Random) -> Form:
    """Give words as PDFs and scans are read: boxes of the ink in another font, and a letter misread now and then."""
    narrow, slack = rng.uniform(0.75, 1.05), rng.choice((0.0, 0.5, 1.5))
    words = [replace(word, box=_ink(word, narrow, slack)) for word in form.words]
    for index, word in enumerate(words):
        if rng.random() < 0.03:
            place = rng.randrange(len(word.text))
            text = word.text[:place] + rng.choice(CHARACTERS.strip()) + word.text[place + 1 :]
            words[index] = replace(word, text=text.replace(" ", "."))
    return replace(form, words=words)


def _ink(word: Word, narrow: float, slack: float) -> Box:
    """Find where a word has ink, in a font so many times as wide, with so many points of slack around."""
    share = word.size / 20
    left, top, right, bottom = (edge * share for edge in load_font(FONT, 20).getbbox(word.text))
    x, y = word.box[:2]
    return (x + left * narrow - slack, y + top - slack, x + right * narrow + slack, y + bottom + slack)


def absent_field(form: Form, rng: random.Random) -> str:
    """Think of a field that a form lacks."""
    while True:
        key = rng.choice(list(FIELDS)) if rng.random() < 0.7 else pseudo_word(rng).capitalize()
        if key not in form.answers:
            return key


def question(key: str, rng: random.Random) -> str:
    """Ask for a field in one of several ways."""
    return rng.choice(QUESTIONS).format(key)


def render(form: Form, font: str = FONT) -> Image.Image:
    """Draw a form as a page in RGB, two pixels to the point."""
    page = Image.new("RGB", (PAGE[0] * SCALE, PAGE[1] * SCALE), "white")
    draw = ImageDraw.Draw(page)
    for word in form.words:
        at = (word.box[0] * SCALE, word.box[1] * SCALE)
        draw.text(at, word.text, fill="black", font=load_font(font, round(word.size * SCALE)))
    return page


def cut_words(form: Form, font: str, margin: int, *, by_line: bool) -> list[Line]:
    """Cut a drawn page into its words, as high as their line or as their own ink, with a margin in pixels."""
    page, cuts = render(form, font), []
    for word in form.words:
        face = load_font(font, round(word.size * SCALE))
        left, top, right, bottom = face.getbbox(word.text)
        if by_line:
            top, bottom = 0, sum(face.getmetrics())
        x, y = (edge * SCALE for edge in word.box[:2])
        box = (x + left - margin, y + top - margin, x + right + margin, y + bottom + margin)
        cuts.append(Line(page.crop(box), word.text, font))
    return cuts


def thumbnail(form: Form, side: int) -> Image.Image:
    """Sketch a page as a square of so many pixels: words are grey, as they look from afar."""
    sketch = Image.new("L", (side, side), 255)
    draw = ImageDraw.Draw(sketch)
    for left, top, right, bottom in form.boxes:
        draw.rectangle([edge * side // 1000 for edge in (left, top, right, bottom)], fill=190)
    return sketch.convert("RGB")


def write_pdf(form: Form) -> bytes:
    """Write a form as a PDF of one page with a text layer in Helvetica."""
    lines = []
    for word in form.words:
        text = word.text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        baseline = PAGE[1] - word.box[3] + 0.15 * word.size
        lines.append(f"BT /F1 {word.size:.1f} Tf {word.box[0]:.2f} {baseline:.2f} Td ({text}) Tj ET")
    content = "\n".join(lines).encode("latin-1")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>" % PAGE,
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
