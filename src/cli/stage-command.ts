import type { StageConfig, StageName } from '../config/index.js';
import type { StageContext } from '../runs/events.js';
import { replayStep, type Replay } from '../training/replay.js';
import type { Setup } from './entry.js';
import { listen, listening } from './listen.js';
import { addConfigOptions, readConfig, readReporting } from './options.js';

/** A stage: takes its configuration, reports through the context, resolves to the run folder. */
export type Stage<Name extends StageName> = (config: StageConfig<Name>, context: StageContext) => Promise<string>;

/** Stages of optimizer steps. */
export type TrainerName = 'pretrain' | 'sft' | 'rm' | 'grpo' | 'dpo';

/** The command of a stage that leaves a run folder; its path is what stdout gets, unless `--json` asks for events. */
export function stageCommand<Name extends StageName>(name: Name, stage: Stage<Name>): Setup {
  return (command, host) => {
    addConfigOptions(command, name);
    command.action(async () => {
      const config = await readConfig(command, name);
      await listen(readReporting(command), host, (context) => stage(config, context));
    });
  };
}

/**
 * A stage of optimizer steps: the same, in a process of its own where that is of use, and `--replay` repeats the step at
 * which a run stopped.
 */
export function trainerCommand<Name extends TrainerName>(name: Name, load: () => Promise<Stage<Name>>): Setup {
  return (command, host) => {
    addConfigOptions(command, name);
    command.option('--replay', 'Repeat the step at which the run in --out stopped, and tell what in it is not finite.');
    command.action(async () => {
      const config = await readConfig(command, name);
      const reporting = readReporting(command);
      if (command.getOptionValue('replay') !== true) {
        if (await host.elsewhere(config.out)) return;
        const stage = await load();
        await listen(reporting, host, (context) => stage(config, context));
        return;
      }
      const stage = await load();
      const replay = await listening({ json: false, quiet: reporting.quiet }, host, (context) =>
        replayStep(stage, config, context),
      );
      host.print(reporting.json ? JSON.stringify(replay) : showReplay(replay));
    });
  };
}

/** What repeating a step showed, for people. */
function showReplay({ step, problem, origin, rows }: Replay): string {
  const lines = [problem === undefined ? `Step ${step}: every number is finite now.` : `Step ${step}: ${problem}.`];
  if (problem !== undefined)
    lines.push(`First: ${origin ?? 'no single value; a sum of finite ones left the range of float32'}`);
  return [...lines, 'Rows:', ...rows.map((row) => `  ${row}`)].join('\n');
}

/** `run RECIPE`: the same with a YAML file as its argument. */
export function recipeCommand(load: () => Promise<Stage<'run'>>): Setup {
  return (command, host) => {
    command.argument('<recipe>', 'YAML file with settings.');
    addConfigOptions(command, 'run');
    command.action(async (recipe: string) => {
      const config = await readConfig(command, 'run', [recipe]);
      if (await host.elsewhere(config.out)) return;
      const pipeline = await load();
      await listen(readReporting(command), host, (context) => pipeline(config, context));
    });
  };
}
