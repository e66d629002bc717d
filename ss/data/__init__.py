"""Training and test data: from recordings of single speakers to mixtures with an enrolment, in files or while training.

    corpus (files, speakers) -> index (where speech is) -> catalog (what is drawn from) -> plan -> manifest -> render -> folder

`plan.plan_row` is a function of (seed, epoch, index), `render.Renderer` one of the row: files, loaders, ranks get the same bytes.
`mix.as_scenes` makes scenes of the keys of two-speaker mixing. `published` rebuilds known sets,
`download` and `shards` bring and pack corpora.
"""
