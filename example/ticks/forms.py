"""What a visitor may ask for; the page and the API share these bounds."""

from django import forms
from django.conf import settings

from ticks import tasks


class NumberField(forms.FloatField):
    """A finite number; a whole one is passed on as an integer."""

    def clean(self, value: object) -> float | None:
        number = super().clean(value)
        return int(number) if number is not None and number.is_integer() else number


class AddForm(forms.Form):
    task = tasks.add
    x = NumberField(label="First number", min_value=-1e9, max_value=1e9, initial=2)
    y = NumberField(label="Second number", min_value=-1e9, max_value=1e9, initial=3)


class SlowForm(forms.Form):
    task = tasks.slow
    seconds = NumberField(
        label="Seconds", min_value=0, max_value=settings.PAGE_SLOW_SECONDS, initial=10
    )


FORMS: dict[str, type[AddForm | SlowForm]] = {"add": AddForm, "slow": SlowForm}
