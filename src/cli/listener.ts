import type { StageEvent } from '../runs/events.js';

/** Someone who follows a stage. */
export interface Listener {
  onEvent(event: StageEvent): void;
  /** Leaves the terminal as it was; nothing is said after it. */
  close(): void;
}
