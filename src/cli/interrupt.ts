/**
 * Makes the first SIGINT or SIGTERM abort `controller`, so that the command finishes its step and saves, and a second
 * one end the process at once. Returns a function that takes the handlers away.
 *
 * @param tell tells the person what is going on
 */
export function stopOnSignals(controller: AbortController, tell: (line: string) => void): () => void {
  const stop = (): void => {
    if (controller.signal.aborted) {
      // Dying of the signal is immediate, where process.exit would wait for a step that computes; shells report 130.
      process.off('SIGINT', stop).off('SIGTERM', stop);
      process.kill(process.pid, 'SIGINT');
      return;
    }
    tell('Stopping as soon as all is saved; once more to leave at once.');
    controller.abort();
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  return () => {
    process.off('SIGINT', stop).off('SIGTERM', stop);
  };
}
