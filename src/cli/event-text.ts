import type { StageEvent } from '../runs/events.js';

type Event<Type extends StageEvent['type']> = Extract<StageEvent, { type: Type }>;

/** Metrics that people want to see at once, in this order; others are in `metrics.jsonl`. */
const HEADLINES = ['loss', 'reward', 'kl', 'eval_loss', 'eval_reward', 'accuracy', 'f1', 'roc_auc', 'learning_rate'];

/** A number with four significant digits, as short as it goes: `0.3679`, `2e-5`, `12`. */
export function showNumber(value: number): string {
  if (!Number.isFinite(value) || value === 0) return String(value);
  const rounded = Number(value.toPrecision(4));
  const magnitude = Math.abs(rounded);
  return magnitude < 1e-3 || magnitude >= 1e7 ? rounded.toExponential() : String(rounded);
}

/** Seconds as people say them: `42 s`, `3 min 5 s`, `2 h 10 min`. */
export function showDuration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** `loss 2.31 · reward 0.4`: the few metrics that tell how it goes. */
export function showMetrics(values: Readonly<Record<string, number>>): string {
  const names = Object.keys(values);
  const known = HEADLINES.filter((name) => names.includes(name));
  const shown = known.length > 0 ? known : names.slice(0, 4);
  return shown.map((name) => `${name} ${showNumber(values[name]!)}`).join(' · ');
}

/** Text that a model wrote, safe for a terminal: control characters but line feeds become visible. */
export function safeText(text: string): string {
  return text.replace(/[^\P{Cc}\n]/gu, '\ufffd');
}

/** A sample on its own lines: what was asked, indented below it what was written. */
export function showSample(event: Event<'sample'>): string {
  const reward = event.reward === undefined ? '' : ` · reward ${showNumber(event.reward)}`;
  const indent = (text: string): string => safeText(text).trim().replaceAll('\n', '\n    ');
  return `  step ${event.step} · ${event.label}${reward}\n    ${indent(event.prompt)}\n  → ${indent(event.completion)}`;
}

/** One line of progress: `sft 12/100 (12 %) loss 2.31`. */
export function showProgress(event: Event<'progress'>): string {
  const { task, done, total, note } = event;
  const share = total === undefined || total === 0 ? '' : ` (${Math.floor((100 * done) / total)} %)`;
  return `${task} ${done}${total === undefined ? '' : `/${total}`}${share}${note === undefined ? '' : ` ${note}`}`;
}

/** The line of an event that is not progress, or undefined for one without. */
export function showEvent(event: Exclude<StageEvent, { type: 'progress' }>): string {
  switch (event.type) {
    case 'start':
      return `${event.stage} → ${event.out}${event.totalSteps === undefined ? '' : ` (${event.totalSteps} steps)`}`;
    case 'metrics':
      return `step ${event.step} (epoch ${showNumber(event.epoch)}) ${showMetrics(event.values)}`;
    case 'sample':
      return showSample(event);
    case 'checkpoint':
      return `checkpoint of step ${event.step}: ${event.path}`;
    case 'warning':
      return `Warning: ${event.message}`;
    case 'note':
      return `Note: ${safeText(event.message)}`;
    case 'end':
      return `done: ${event.out}`;
  }
}
