// The page: loads a model, keeps one conversation with it, and says so when either fails.
//
// For tests and links: ?model=URL (or "none") &prompt=TEXT, temperature, top-p, max-tokens, seed, system, device, context, planes, wasm, threads;
// profile shows the GPU's kernels after the first answer. Every element worth finding has a data-testid; <body data-state> is starting, loading,
// empty, ready, answering or failed.
import { Engine, type EngineOptions, type FinishReason, type Message, type Model, type Progress, type Usage } from 'subbyte';

import { lossOf, type Loss } from './card.ts';
import { h, part, setText } from './dom.ts';
import { bytes, bytesOf, duration } from './format.ts';
import { LoadCard } from './loading.ts';
import { watchMaking } from './making.ts';
import { choiceOf, Picker, type Choice } from './picker.ts';
import { Scroller } from './scroller.ts';
import { SettingsDrawer } from './settings.ts';
import { SideCard } from './side.ts';
import { read, write } from './stored.ts';
import { Strip } from './strip.ts';
import { startTheme } from './theme.ts';
import { troubleCard, troubleOf, type Action } from './trouble.ts';
import { AnswerView, QuestionView, type Turn } from './turns.ts';

type State = 'starting' | 'loading' | 'empty' | 'ready' | 'answering' | 'failed';

interface Kept {
  turns: Turn[];
  /** Turns before this one are not sent to the model any more. */
  from: number;
}

const REFINING = 'Refining the model';

const isAbort = (error: unknown) => error instanceof Error && error.name === 'AbortError';

class Chat {
  readonly #query = new URLSearchParams(location.search);
  readonly #messages = part('messages');
  readonly #welcome = part('welcome');
  readonly #failed = part('load-failed');
  readonly #prompt = part<HTMLTextAreaElement>('prompt');
  readonly #send = part<HTMLButtonElement>('send');
  readonly #stop = part<HTMLButtonElement>('stop');
  readonly #said = part('announcer');
  readonly #settings = new SettingsDrawer(this.#query, () => void this.#changeDevice());
  readonly #strip = new Strip();
  readonly #scroller = new Scroller();
  readonly #card = new LoadCard(() => this.#loading?.abort());
  readonly #side = new SideCard();
  readonly #picker = new Picker((choice) => void this.load(choice));

  #engine: Engine | null = null;
  #model: Model | null = null;
  #choice: Choice | null = null;
  #loading: AbortController | null = null;
  #answering: AbortController | null = null;
  #answer: Promise<void> = Promise.resolve();
  #current: AnswerView | null = null;
  #kept: Kept = { turns: [], from: 0 };

  async start(): Promise<void> {
    startTheme();
    this.#listen();
    this.#restore();
    const listed = await this.#picker.fetchList();
    const asked = this.#query.get('model');
    const question = this.#query.get('prompt');
    if (question) this.#ask(question);
    if (asked === 'none') return this.#setState('empty');
    const choice = asked ? choiceOf(asked) : listed[0];
    if (choice) await this.load(choice);
    else this.#setState('empty');
    if (!asked && choice) await this.#swapWhenMade(choice);
  }

  // The server makes the small default model while the page chats with `first`. Once it is there it takes that one's place between two
  // answers; the conversation goes on.
  async #swapWhenMade(first: Choice): Promise<void> {
    if (!(await watchMaking(this.#side))) return;
    const [made] = await this.#picker.fetchList();
    const old = this.#model;
    if (!made || !old || this.#choice !== first || made.source === first.source) return this.#side.hide();
    try {
      const model = await this.#open(made, (progress) => {
        // 'ready' comes twice, the second time from the refinement; what follows either takes the card away.
        if (progress.phase !== 'ready') this.#showBeside(progress, progress.phase === 'refinement' ? REFINING : `Loading ${made.name}`);
      });
      const loss = await lossOf(made.source);
      while (this.#current && this.#model === old) await this.#answer;
      this.#side.hide();
      if (this.#model !== old || this.#loading) return void (await model.dispose()); // another was chosen meanwhile
      this.#choice = made;
      this.#picker.setCurrent(made.source);
      this.#take(model, made, loss);
      this.#say(`${made.name} has taken the place of ${first.name}.`);
      await old.dispose();
    } catch (error) {
      this.#side.fail(`${made.name} could not be loaded`, troubleOf(error).message);
    }
  }

  async #open(choice: Choice, onProgress: (progress: Progress) => void, signal?: AbortSignal): Promise<Model> {
    const engine = (this.#engine ??= await Engine.create(this.#engineOptions()));
    this.#strip.setCapabilities(engine.capabilities);
    const context = Number(this.#query.get('context'));
    const planes = this.#query.get('planes');
    const model = await engine.load(choice.source, {
      onProgress,
      ...(signal ? { signal } : {}),
      ...(context ? { context } : {}),
      ...(planes ? { planes: planes as 'base' } : {}),
    });
    this.#strip.setCapabilities(engine.capabilities); // it may have had to go to the CPU
    return model;
  }

  #showBeside({ loadedBytes, totalBytes }: Progress, title: string): void {
    this.#side.show({ title, phase: bytesOf(loadedBytes, totalBytes), fraction: totalBytes ? loadedBytes / totalBytes : 0, leftMs: null });
  }

  // The model that answers from now on.
  #take(model: Model, choice: Choice, loss: Loss | null): void {
    this.#model = model;
    this.#strip.setModel(model, loss);
    this.#showModel(model, choice);
    const changed = () => {
      if (model !== this.#model) return;
      this.#side.hide(REFINING);
      this.#strip.showBits(model, loss);
      this.#showModel(model, choice);
      void this.#strip.refresh(true);
    };
    model.addEventListener('refined', changed);
    if (model.planes === 'full') this.#side.hide(REFINING); // it came before anyone listened
    model.addEventListener('dropped', changed);
    model.addEventListener('device', ({ detail }) => model === this.#model && this.#strip.setDevice(detail));
    model.addEventListener('refinementfailed', ({ detail: { error } }) => {
      if (model === this.#model && !isAbort(error)) this.#side.fail('The refinement did not come', `${troubleOf(error).message}. The chat goes on with the base.`);
      if (model === this.#model) this.#strip.showBits(model, loss);
    });
  }

  /** Puts `choice` in the place of the model that was there. */
  async load(choice: Choice): Promise<void> {
    this.#loading?.abort();
    const control = (this.#loading = new AbortController());
    this.stop();
    await this.#answer; // it ends on the page, too, before the next thing is shown
    if (control !== this.#loading) return;
    this.#choice = choice;
    this.#picker.setCurrent(choice.source);
    this.#failed.replaceChildren();
    this.#setState('loading');
    this.#card.start(choice.name);
    setText(part('model-current'), choice.name);
    setText(part('model-detail'), '');
    this.#current?.wait('Waiting for the model');
    try {
      // The old one first: two models may not fit.
      const old = this.#model;
      this.#model = null;
      this.#strip.setModel(null);
      await old?.dispose();
      const onProgress = (progress: Progress) => {
        if (choice !== this.#choice) return;
        if (progress.phase === 'refinement') this.#showBeside(progress, REFINING);
        else if (control === this.#loading) this.#card.progress(progress);
      };
      const model = await this.#open(choice, onProgress, control.signal);
      const loss = await lossOf(choice.source);
      if (control !== this.#loading) return void (await model.dispose()); // another was chosen meanwhile
      this.#loading = null;
      const ms = this.#card.end();
      this.#take(model, choice, loss);
      this.#setState('ready');
      this.#say(`${choice.name} is ready after ${duration(ms)}.`);
      if (this.#current) await this.#run();
    } catch (error) {
      if (control !== this.#loading) return;
      this.#loading = null;
      this.#card.end();
      this.#setState(isAbort(error) ? 'empty' : 'failed');
      setText(part('model-current'), 'Choose a model');
      this.#picker.setCurrent(null);
      this.#dropWaiting();
      if (!isAbort(error)) this.#showLoadFailure(error, choice);
    }
  }

  // A device is chosen when an engine is made.
  async #changeDevice(): Promise<void> {
    const old = this.#engine;
    this.#engine = null;
    if (this.#choice) await this.load(this.#choice);
    await old?.dispose();
  }

  send(text: string): void {
    if (!text.trim() || this.#current) return;
    this.#ask(text.trim());
    if (this.#model) void this.#run();
    else if (!this.#loading) {
      this.#dropWaiting();
      this.#picker.open();
    }
  }

  stop(): void {
    this.#answering?.abort();
  }

  newChat(): void {
    this.stop();
    void this.#answer.then(() => {
      this.#current = null;
      this.#kept = { turns: [], from: 0 };
      this.#save();
      this.#messages.replaceChildren();
      this.#setState(this.#state);
      void this.#model?.reset().then(() => this.#strip.refresh(true)).catch(() => {}); // a broken worker says so at the next answer
      this.#prompt.focus();
    });
  }

  // A question goes onto the page, and an empty answer below it.
  #ask(text: string): void {
    this.#kept.turns.push({ role: 'user', content: text }, { role: 'assistant', content: '' });
    this.#prompt.value = '';
    this.#fit();
    this.#show(this.#kept.turns.length - 2);
    this.#scroller.toEnd();
    this.#setState(this.#state);
    this.#current?.wait(this.#model ? 'Reading the question' : 'Waiting for the model');
  }

  #run(): Promise<void> {
    return (this.#answer = this.#runNow());
  }

  async #runNow(): Promise<void> {
    const view = this.#current;
    const model = this.#model;
    if (!view || !model) return;
    const control = (this.#answering = new AbortController());
    this.#setState('answering');
    this.#strip.startAnswer();
    view.wait('Reading the question');
    let frame = 0;
    const paint = () => {
      frame = 0;
      view.show();
      this.#strip.show();
      this.#scroller.follow();
    };
    let usage: Usage | null = null;
    let ended: FinishReason = 'cancelled';
    let trouble: unknown = null;
    try {
      const stream = model.generate(this.#asked(model), { ...this.#settings.options(), signal: control.signal });
      for await (const part of stream) {
        this.#strip.token(part.ms);
        view.push(part.text);
        frame ||= requestAnimationFrame(paint);
      }
      ({ usage, finishReason: ended } = await stream.result);
    } catch (error) {
      if (!isAbort(error)) trouble = error;
    }
    cancelAnimationFrame(frame);
    const figures = this.#strip.endAnswer(usage);
    if (trouble) view.fail(this.#answerTrouble(trouble));
    else view.end(ended, figures);
    this.#current = null;
    this.#answering = null;
    this.#save();
    this.#setState('ready');
    this.#scroller.follow();
    if (!trouble && this.#query.has('profile') && this.#kept.turns.length === 2) this.#strip.profile();
    // The whole answer at once: read out token by token it would be noise.
    if (!trouble) this.#say(ended === 'cancelled' ? 'Stopped.' : `Answer: ${this.#kept.turns.at(-1)?.content ?? ''}`);
  }

  // A model that was never taught to chat goes on with the last text instead.
  #asked(model: Model): Message[] | string {
    return model.info.hasChatTemplate ? this.#conversation() : this.#kept.turns.at(-2)!.content;
  }

  // What a chat model is given: the turns that are still sent, without questions that never got an answer.
  #conversation(): Message[] {
    const { turns, from } = this.#kept;
    const sent: Message[] = this.#settings.system ? [{ role: 'system', content: this.#settings.system }] : [];
    for (let i = from; i + 1 < turns.length; i += 2) {
      const isLast = i + 2 >= turns.length;
      if (isLast || turns[i + 1]!.content) sent.push({ role: 'user', content: turns[i]!.content });
      if (!isLast && turns[i + 1]!.content) sent.push({ role: 'assistant', content: turns[i + 1]!.content });
    }
    return sent;
  }

  #again(question?: string): void {
    const { turns } = this.#kept;
    if (this.#current || turns.length < 2) return;
    const text = question ?? turns.at(-2)!.content;
    turns.length -= 2;
    this.#kept.from = Math.min(this.#kept.from, turns.length);
    this.#messages.querySelectorAll('.turn').forEach((element, i) => i >= turns.length && element.remove());
    this.send(text);
  }

  #answerTrouble(error: unknown): HTMLElement {
    const trouble = troubleOf(error);
    const again: Action = { label: 'Try again', testId: 'retry', run: () => this.#again() };
    const actions: Action[] = [];
    if (trouble.code === 'kWorkerFailed' || trouble.code === 'kSessionClosed') {
      actions.push({ label: 'Load the model again', testId: 'retry', run: () => void this.#reload() });
    } else if (trouble.code === 'kPromptTooLong') {
      if (this.#kept.turns.length - this.#kept.from > 2) {
        actions.push({ label: 'Leave out the older messages', testId: 'leave-out', run: () => this.#leaveOut() });
      }
      actions.push({ label: 'New chat', testId: 'trouble-new-chat', run: () => this.newChat() });
    } else if (trouble.retryable) actions.push(again);
    else actions.push(again, { label: 'New chat', testId: 'trouble-new-chat', run: () => this.newChat() });
    return troubleCard('No answer', trouble, actions);
  }

  // After a crash: the model anew, then the question that it died over.
  async #reload(): Promise<void> {
    const choice = this.#choice;
    if (!choice) return this.#picker.open();
    const question = this.#kept.turns.at(-2)?.content;
    this.#dropWaiting();
    this.#kept.turns.length = Math.max(0, this.#kept.turns.length - 2);
    this.#redraw();
    if (question) this.#ask(question);
    await this.load(choice);
  }

  #leaveOut(): void {
    const { turns } = this.#kept;
    // Half of the conversation, in whole pairs: then there is room for a while.
    const pairs = Math.max(1, Math.ceil((turns.length - 2 - this.#kept.from) / 4));
    this.#kept.from += 2 * pairs;
    this.#markLeftOut();
    this.#again();
  }

  #showLoadFailure(error: unknown, choice: Choice): void {
    const trouble = troubleOf(error);
    const actions: Action[] = [{ label: 'Choose another model', testId: 'choose', run: () => this.#picker.open() }];
    const retry: Action = { label: 'Try again', testId: 'retry', run: () => void this.load(choice) };
    if (trouble.code.startsWith('kDevice')) actions.unshift({ label: 'Use the CPU', testId: 'use-cpu', run: () => this.#settings.setDevice('cpu') });
    if (trouble.retryable) actions.unshift(retry);
    this.#failed.replaceChildren(troubleCard(`Could not load “${choice.name}”`, trouble, actions));
    this.#scroller.toEnd();
  }

  // A question that nobody will answer goes back to where it can be asked again.
  #dropWaiting(): void {
    if (!this.#current) return;
    const [question] = this.#kept.turns.splice(-2);
    this.#current = null;
    this.#redraw();
    if (question && !this.#prompt.value) this.#prompt.value = question.content;
    this.#fit();
  }

  #showModel(model: Model, choice: Choice): void {
    setText(part('model-current'), choice.name);
    const { bpw, weightBytes, hasChatTemplate } = model.info;
    const detail = [weightBytes ? bytes(weightBytes) : '', bpw ? `${bpw.toFixed(2)} bits a weight` : '', hasChatTemplate ? '' : 'continues text'].filter(Boolean).join(' · ');
    setText(part('model-detail'), detail);
    this.#prompt.placeholder = hasChatTemplate ? 'Ask anything' : 'Begin a text; the model goes on';
  }

  #show(from: number): void {
    const { turns } = this.#kept;
    for (let i = from; i < turns.length; i++) {
      const turn = turns[i]!;
      if (turn.role === 'user') this.#messages.append(new QuestionView(turn, (text) => this.#again(text)).element);
      else {
        const view = new AnswerView(turn, () => this.#again());
        if (!turn.ended) this.#current = view;
        this.#messages.append(view.element);
      }
    }
    this.#markLeftOut();
  }

  #redraw(): void {
    this.#messages.replaceChildren();
    this.#show(0);
    this.#setState(this.#state);
  }

  #markLeftOut(): void {
    this.#messages.querySelector('.left-out')?.remove();
    const first = this.#messages.querySelectorAll('.turn')[this.#kept.from];
    if (this.#kept.from > 0) first?.before(h('p', { class: 'left-out' }, 'The model no longer sees what is above'));
  }

  #restore(): void {
    if (this.#query.has('prompt')) return;
    const kept = read<Kept>('conversation', { turns: [], from: 0 });
    // Written by an older page, or by hand: take it only as a whole.
    const isSound = Array.isArray(kept.turns) && kept.turns.length % 2 === 0 && kept.turns.every((turn) => typeof turn?.content === 'string');
    if (!isSound) return;
    for (const turn of kept.turns) if (turn.role === 'assistant') turn.ended ??= 'cancelled';
    this.#kept = { turns: kept.turns, from: kept.from || 0 };
    this.#show(0);
    this.#scroller.toEnd();
  }

  #save(): void {
    write('conversation', this.#kept.turns.length ? this.#kept : null);
  }

  #engineOptions(): EngineOptions {
    const wasm = this.#query.get('wasm');
    const threads = this.#query.get('threads');
    const device = this.#settings.device as EngineOptions['device'];
    // Whoever chose the GPU by name hears why it cannot be; the automatic choice goes to the CPU and says so.
    return { ...(device ? { device } : {}), ...(device === 'webgpu' ? { fallback: false } : {}), ...(wasm ? { wasm: wasm as 'auto' } : {}), ...(threads ? { threads: Number(threads) } : {}) };
  }

  get #state(): State {
    return document.body.dataset['state'] as State;
  }

  #setState(state: State): void {
    document.body.dataset['state'] = state;
    const isBusy = this.#current !== null;
    this.#stop.hidden = state !== 'answering';
    this.#send.hidden = state === 'answering';
    this.#send.disabled = isBusy;
    this.#welcome.hidden = this.#kept.turns.length > 0 || state === 'failed';
    part('no-model').hidden = state !== 'empty';
    part('suggestions').hidden = state === 'empty' || state === 'failed';
  }

  #say(text: string): void {
    // The same words twice would not be read out twice.
    this.#said.replaceChildren(h('span', {}, text));
  }

  #fit(): void {
    this.#prompt.style.height = 'auto';
    this.#prompt.style.height = `${Math.min(this.#prompt.scrollHeight, innerHeight * 0.4)}px`;
  }

  #listen(): void {
    part<HTMLFormElement>('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.send(this.#prompt.value);
    });
    this.#prompt.addEventListener('input', () => this.#fit());
    this.#prompt.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.send(this.#prompt.value);
    });
    this.#stop.addEventListener('click', () => {
      this.stop();
      this.#prompt.focus();
    });
    part('new-chat').addEventListener('click', () => this.newChat());
    part('help-button').addEventListener('click', () => part<HTMLDialogElement>('help').showModal());
    for (const button of part('suggestions').querySelectorAll('button')) {
      button.addEventListener('click', () => this.send(button.textContent ?? ''));
    }
    for (const dialog of document.querySelectorAll('dialog')) {
      // A click beside it closes it.
      dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
    }
    addEventListener('keydown', (event) => {
      const isInDialog = document.querySelector('dialog[open], [popover]:popover-open') !== null;
      if (event.key === 'Escape' && this.#answering && !isInDialog) this.stop();
      if (event.key.toLowerCase() === 'k' && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey) {
        event.preventDefault(); // the browser's own search field
        if (!isInDialog) this.newChat();
      }
    });
    // What came of a running answer; else everything is kept already, and another tab's conversation may be newer.
    addEventListener('pagehide', () => this.#answering && this.#save());
  }
}

void new Chat().start();
