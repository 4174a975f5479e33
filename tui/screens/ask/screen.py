"""Ask: a conversation with the box at one side, the passages it rests on at the other."""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import Key
from textual.widgets import Input, Static

from tui import words
from tui.errors import ContractError, RequestFailedError, ServerGoneError
from tui.keymap import key
from tui.screens.area import Area
from tui.screens.ask.turn import Turn, as_text
from tui.widgets.evidence import EvidencePane
from tui.widgets.split import Split
from whis_box.schemas import Answer, Citation

HINT = "The passages behind an answer are shown here.\nPress 1 to 9, Ctrl+E, or click a [n] in an answer."
WELCOME = """Ask a question about alerts, logs, techniques or first steps.
Every sentence of an answer is a quote that the box holds; where it holds none, it says so.

  Enter   ask                      Ctrl+O  promptbooks: ready questions
  Ctrl+F  follow up on an answer   Ctrl+R  history, with search
  F3      triage alerts            F1      all keys
"""
REDRAW_S = 0.05
MAX_TURNS = 40


class QuestionLine(Input):
    """The question; while the line is empty, `?` asks for help and Ctrl+arrows move the panes."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Going by words is the area's key until there are words."""
        if action in ("cursor_left_word", "cursor_right_word") and not self.value:
            return False
        return super().check_action(action, parameters)

    def on_key(self, event: Key) -> None:
        if event.character == "?" and not self.value:
            event.prevent_default()
            event.stop()
            self.app.run_worker(self.app.run_action("help"))


class AskScreen(Area):
    """The area."""

    AREA = "ask"
    HELP = """Type a question and press Enter. The draft appears while it is written; then the checked answer
replaces it. [n] after a sentence is its source: press n, Ctrl+E or click it, and the passage
is shown with the quote between » and «. Esc stops an answer at once; Esc again leaves the line
for single keys, i comes back. Ctrl+F ties the next question to the answer's first source."""
    BINDINGS: ClassVar[list[BindingType]] = [
        key("ask.stop", "stop"),
        key("ask.question", "question"),
        key("ask.promptbook", "promptbook", priority=True),
        key("ask.history", "history", priority=True),
        key("ask.follow_up", "follow_up", priority=True),
        key("ask.evidence", "evidence(1)", priority=True),
        key("ask.previous_evidence", "evidence(-1)", priority=True),
        key("ask.new", "new", priority=True),
        key("ask.rate_up", "rate('up')"),
        key("ask.rate_down", "rate('down')"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._asking: Turn | None = None
        self._shown: Turn | None = None
        self._tied: Turn | None = None

    def compose_body(self) -> ComposeResult:
        turns = VerticalScroll(Static(WELCOME, id="welcome", markup=False), id="turns", can_focus=True)
        yield Split(turns, EvidencePane(HINT), "ask")
        with Horizontal(id="question-row"):
            yield Static("❯ ", id="prompt", markup=False)
            line = QuestionLine(placeholder="Ask the box…", id="question", compact=True)
            line.cursor_blink = False
            yield line

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#question").focus()

    # ------------------------------------------------------------- questions

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Ask, or say why not yet; the text stays where it was then."""
        question = event.value.strip()
        if not question:
            self.say("the question is empty; type one, or Ctrl+O for a ready one", "warning")
        elif self._asking is not None:
            self.say("one question at a time: Esc stops the running one", "warning")
        elif self.client is not None:
            event.input.clear()
            self.work("ask", self._ask, question)

    async def _ask(self, question: str) -> None:
        sent = self._with_context(question)
        turn = await self._add_turn(question, sent if sent != question else "")
        self._asking = turn
        self.say("asking…")
        try:
            await self._stream(turn, sent)
        except (RequestFailedError, ServerGoneError, ContractError) as error:
            turn.end(f"not answered: {error}")
            self._follow(turn)
            self._give_back(question)
            raise
        except asyncio.CancelledError:
            turn.end("stopped; what was drafted was never checked")
            raise
        finally:
            self._asking = None

    async def _stream(self, turn: Turn, sent: str) -> None:
        client = self.client
        assert client is not None
        drawn_at = 0.0
        async for name, value in client.ask(sent):
            if isinstance(value, Answer):
                turn.finish(value)
                self._answered(turn, value)
            elif name == "delta":
                turn.draft += value
                if time.monotonic() - drawn_at > REDRAW_S:
                    drawn_at = time.monotonic()
                    turn.draw()
                    self._follow(turn)

    def _answered(self, turn: Turn, answer: Answer) -> None:
        self.call_after_refresh(self._read_from_start, turn)
        self._shown = turn
        self.say(words.outcome(answer))
        state = self.whis.state
        if state is not None:
            state.remember(turn.question, answer.answer, answer.model_dump_json())
            if state.problem:
                self.say(state.problem, "warning")
        if answer.citations:
            self._cite(turn, answer.citations[0])
        else:
            self.query_one(EvidencePane).clear()

    async def _add_turn(self, question: str, sent: str = "") -> Turn:
        for welcome in self.query("#welcome"):
            await welcome.remove()
        self._count += 1
        turn = Turn(self._count, question, sent)
        turns = self.query_one("#turns")
        await turns.mount(turn)
        for old in list(self.query(Turn))[:-MAX_TURNS]:
            await old.remove()
        self._follow(turn)
        return turn

    def _follow(self, turn: Turn) -> None:
        self.query_one("#turns", VerticalScroll).scroll_end(animate=False)

    def _read_from_start(self, turn: Turn) -> None:
        turns = self.query_one("#turns", VerticalScroll)
        turns.scroll_to_widget(turn, animate=False, top=True, force=True)

    def _give_back(self, question: str) -> None:
        """A question that got no answer is not lost."""
        line = self.query_one("#question", Input)
        if not line.value:
            line.value = question
            line.cursor_position = len(question)

    def _with_context(self, question: str) -> str:
        """What a follow-up is sent as: the server reads one question, so it names what it is about."""
        tied, self._tied = self._tied, None
        self._show_prompt()
        if tied is None or tied.answer is None or not tied.answer.citations:
            return question
        return f"{tied.answer.citations[0].title}: {question}"

    # --------------------------------------------------------------- actions

    def action_stop(self) -> None:
        """Stop the answer; without one, untie a follow-up, else leave the line."""
        if self._asking is not None:
            self._asking.end("stopped; what was drafted was never checked")
            self.workers.cancel_group(self, "ask")
            self._asking = None
            self.say("stopped")
        elif self._tied is not None:
            self._tied = None
            self._show_prompt()
        elif self.query_one("#question").has_focus:
            self.query_one("#turns").focus()
            self.say("single keys: 1-9 sources, + - rate, y copy, i back to the line")

    def action_question(self) -> None:
        """Back to the line."""
        self.query_one("#question").focus()

    def action_new(self) -> None:
        """An empty page; the history keeps what was."""
        if self._asking is None:
            self.query(Turn).remove()
            self.query_one(EvidencePane).clear()
            self._shown = self._tied = None
            self._show_prompt()
            self.say("cleared; Ctrl+R finds earlier answers")

    def action_follow_up(self) -> None:
        """Tie the next question to the last answer, or untie it."""
        turn = self._last_answered()
        if self._tied is not None:
            self._tied = None
        elif turn is None or turn.answer is None or not turn.answer.citations:
            self.say("nothing to follow up on: the last answer has no source", "warning")
        else:
            self._tied = turn
        self._show_prompt()
        self.action_question()

    def _show_prompt(self) -> None:
        tied = self._tied.answer.citations[0].title if self._tied and self._tied.answer else ""
        self.query_one("#prompt", Static).update(f"↳ {words.short(tied, 28)}: " if tied else "❯ ")

    def action_promptbook(self) -> None:
        """Choose a ready question."""
        from tui.screens.ask.promptbooks import Promptbook, choose, read_books

        def use(book: Promptbook | None) -> None:
            if book is not None:
                self._fill(book.text)

        books, problem = read_books(self.whis.config.promptbooks)
        if problem:
            self.say(problem, "warning")
        self.app.push_screen(choose(books), use)

    def _fill(self, text: str) -> None:
        """The line holds the template, its first blank is selected."""
        line = self.query_one("#question", Input)
        line.value = text
        line.focus()
        start, end = text.find("{"), text.find("}")
        line.cursor_position = len(text)
        if 0 <= start < end:
            line.selection = type(line.selection)(start, end + 1)

    def action_history(self) -> None:
        """Find an earlier answer."""
        from tui.screens.ask.history import History
        from tui.state import Asked

        if self.whis.state is None:
            self.say("the history is being opened; try again", "warning")
            return

        def use(asked: Asked | None) -> None:
            if asked is not None:
                self.work("restore", self._restore, asked)

        self.app.push_screen(History(self.whis.state), use)

    async def _restore(self, asked: object) -> None:
        from tui.screens.ask.history import answer_of, when
        from tui.state import Asked

        assert isinstance(asked, Asked)
        answer = answer_of(asked)
        turn = await self._add_turn(asked.question)
        if answer is None:
            turn.end(f"from the history of {when(asked.at)}, kept by another version: {asked.answer}")
            return
        turn.finish(answer)
        turn.end(f"from the history: answered {when(asked.at)}; sources may have changed since")
        self._shown = turn
        if answer.citations:
            self._cite(turn, answer.citations[0])

    def action_evidence(self, by: int) -> None:
        """The next or previous source of the answer that is shown."""
        turn = self._shown or self._last_answered()
        if turn is None or turn.answer is None or not turn.answer.citations:
            self.say("no source to show", "warning")
            return
        citations = turn.answer.citations
        held = self.query_one(EvidencePane).citation
        place = next((n for n, one in enumerate(citations) if one == held), -1 if by > 0 else 0)
        self._cite(turn, citations[(place + by) % len(citations)])

    def action_cite(self, number: int, n: int) -> None:
        """The source [n] of a turn."""
        turn = next((one for one in self.query(Turn) if one.number == number), None)
        found = next(
            (one for one in (turn.answer.citations if turn and turn.answer else []) if one.n == n), None
        )
        if turn is None or found is None:
            self.say(f"there is no source [{n}]", "warning")
            return
        self._cite(turn, found)

    def on_key(self, event: Key) -> None:
        """1 to 9 outside the line: that source."""
        turn = self._shown or self._last_answered()
        if (
            event.key.isdigit()
            and event.key != "0"
            and turn is not None
            and not self.query_one("#question").has_focus
        ):
            event.stop()
            self.action_cite(turn.number, int(event.key))

    def _cite(self, turn: Turn, citation: Citation) -> None:
        self._shown = turn
        assert turn.answer is not None
        pane = self.query_one(EvidencePane)
        query = turn.sent or turn.question
        self.work("evidence", pane.show, citation, len(turn.answer.citations), query, self.whis.ready_client)

    def _last_answered(self) -> Turn | None:
        return next((one for one in reversed(list(self.query(Turn))) if one.answer is not None), None)

    def action_rate(self, rating: str) -> None:
        """Say that an answer is good or bad."""
        turn = self._shown or self._last_answered()
        if turn is not None and turn.answer is not None and self.client is not None:
            self.work("rate", self._rate, turn, rating, alone=False)

    async def _rate(self, turn: Turn, rating: str) -> None:
        client = self.client
        assert client is not None and turn.answer is not None
        config = self.whis.config
        await client.feedback(
            answer_id=turn.answer.id,
            rating=rating,
            analyst=config.analyst,
            training="yes" if config.consent_training else "no",
        )
        turn.rating = {"up": "good answer", "down": "bad answer"}[rating]
        turn.draw()
        self.say(f"noted: {turn.rating}")

    def text_to_copy(self) -> str:
        """The answer that is shown, with its sources."""
        turn = self._shown or self._last_answered()
        return as_text(turn.question, turn.answer) if turn is not None and turn.answer is not None else ""
