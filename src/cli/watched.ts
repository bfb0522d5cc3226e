/** Set for the process that does the work of another one, which watches over it. */
export const WATCHED = 'DUANZI_WATCHED';
/** What it is told when it shall stop. */
export const STOP = 'stop';

/** A command's work was done in a process of its own, which ended with this exit code and has said what there was to say. */
export class EndedElsewhere extends Error {
  constructor(readonly exitCode: number) {
    super(`the process ended with ${exitCode}`);
    this.name = 'EndedElsewhere';
  }
}

/** Whether this process is watched over, and so does the work itself. */
export const isWatched = (): boolean => process.env[WATCHED] !== undefined && process.send !== undefined;

/**
 * In a process that is watched over: stops when the other one says so or a signal comes, and dies with it. Ctrl-C reaches
 * both, and what a second one means only the other decides.
 */
export function stopWithWatcher(controller: AbortController): () => void {
  const stop = (): void => {
    controller.abort();
  };
  const onMessage = (message: unknown): void => {
    if (message === STOP) stop();
  };
  const die = (): void => {
    process.kill(process.pid, 'SIGKILL');
  };
  process.on('message', onMessage).on('disconnect', die).on('SIGINT', stop).on('SIGTERM', stop);
  return () => {
    process.off('message', onMessage).off('disconnect', die).off('SIGINT', stop).off('SIGTERM', stop);
  };
}
